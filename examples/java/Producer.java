import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;

/** Places orders: the row and its message are one transaction.        java -cp postgresql.jar Producer.java [orders] */
public class Producer {
    /** Behind a PgBouncer before 1.21 in transaction mode, add prepareThreshold=0: it knows no prepared statements there. */
    static final String URL = System.getenv().getOrDefault("JDBC_URL", "jdbc:postgresql://localhost/shop");

    public static void main(String[] args) throws SQLException {
        int orders = args.length > 0 ? Integer.parseInt(args[0]) : 10;
        try (Connection db = DriverManager.getConnection(URL)) {
            db.setAutoCommit(false);
            for (int n = 1; n <= orders; n++) {
                placeOrder(db, 100 * n);
                if (n % 5 == 0) {
                    db.rollback(); // the customer changed his mind: neither the order nor the message was ever there
                } else {
                    db.commit();
                }
            }
        }
    }

    static void placeOrder(Connection db, int amount) throws SQLException {
        try (PreparedStatement insert = db.prepareStatement("INSERT INTO orders (amount) VALUES (?) RETURNING id");
                PreparedStatement send = db.prepareStatement("SELECT mq.send('orders', ?::jsonb)")) {
            insert.setInt(1, amount);
            try (ResultSet row = insert.executeQuery()) {
                row.next();
                send.setString(1, "{\"order\": " + row.getLong(1) + "}"); // JSON as your favourite library writes it
            }
            send.execute();
        }
    }
}
