import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;

/**
 * Takes orders and writes their invoices, until SIGTERM.        java -cp postgresql.jar Worker.java
 *
 * <p>An order is leased to us. The invoice and the ack are one transaction, so both are there or neither. If we die, or are
 * too slow, the lease ends and another worker gets the order; our late ack then fails and takes the invoice with it.
 */
public class Worker {
    /** Behind a PgBouncer before 1.21 in transaction mode, add prepareThreshold=0: it knows no prepared statements there. */
    static final String URL = System.getenv().getOrDefault("JDBC_URL", "jdbc:postgresql://localhost/shop");

    /** The lease lasts mq.visibility_timeout, 30 s unless set; a third argument is for slower work. */
    static final String RECEIVE =
            "SELECT id, receipt, payload->>'order', failures FROM mq.receive('orders', 10, wait => '1 s')";

    static final String LEASE_LOST = "MQ001";
    static final String CONNECTION_LOST = "08006";

    record Message(long id, UUID receipt, String order, int failures) {}

    static volatile boolean stopping = false;

    public static void main(String[] args) throws SQLException, InterruptedException {
        stopAtSigterm(Thread.currentThread());
        long backoff = 100;
        while (!stopping) {
            try (Connection db = DriverManager.getConnection(URL)) {
                while (!stopping) {
                    work(db);
                    backoff = 100; // only now: a pooler lets us connect when the server is away
                }
            } catch (SQLException error) {
                if (!isConnectionError(error)) {
                    throw error;
                }
                log("no connection: %s; again in %d ms", firstLine(error), backoff);
                Thread.sleep(backoff);
                backoff = Math.min(2 * backoff, 5_000);
            }
        }
        System.out.println("stopped");
    }

    static void work(Connection db) throws SQLException, InterruptedException {
        List<Message> messages = receive(db);
        for (Message message : messages) {
            handle(db, message);
        }
    }

    static List<Message> receive(Connection db) throws SQLException {
        List<Message> messages = new ArrayList<>();
        try (Statement statement = db.createStatement();
                ResultSet row = statement.executeQuery(RECEIVE)) {
            while (row.next()) {
                messages.add(new Message(row.getLong(1), row.getObject(2, UUID.class), row.getString(3), row.getInt(4)));
            }
        }
        return messages;
    }

    static void handle(Connection db, Message message) throws SQLException {
        db.setAutoCommit(false);
        try {
            writeInvoice(db, Long.parseLong(message.order));
            ack(db, message);
            db.commit();
        } catch (SQLException | RuntimeException error) {
            if (!db.isValid(5)) {
                throw new SQLException(error.getMessage(), CONNECTION_LOST, error);
            }
            db.rollback();
            if (error instanceof SQLException sql && LEASE_LOST.equals(sql.getSQLState())) {
                log("message %d: lease lost, rolled back", message.id);
            } else {
                long delay = Math.min(1L << Math.min(message.failures, 12), 3600);
                log("message %d: %s; again in %d s", message.id, firstLine(error), delay);
                nack(db, message, delay);
            }
        } finally {
            if (!db.isClosed()) {
                db.setAutoCommit(true);
            }
        }
    }

    /** The work. Whatever it throws, nothing of it stays. */
    static void writeInvoice(Connection db, long order) throws SQLException {
        try (PreparedStatement insert =
                db.prepareStatement("INSERT INTO invoices SELECT id, amount FROM orders WHERE id = ?")) {
            insert.setLong(1, order);
            insert.executeUpdate();
        }
    }

    static void ack(Connection db, Message message) throws SQLException {
        try (PreparedStatement ack = db.prepareStatement("SELECT mq.ack(?)")) {
            ack.setObject(1, message.receipt);
            ack.execute();
        }
    }

    /** Not strict: should the lease be over by now, then others have the message, and that is that. */
    static void nack(Connection db, Message message, long delay) throws SQLException {
        try (PreparedStatement nack =
                db.prepareStatement("SELECT mq.nack(ARRAY[?], make_interval(secs => ?), strict => false)")) {
            nack.setObject(1, message.receipt);
            nack.setDouble(2, delay);
            nack.execute();
        }
    }

    /** 08: connection; 57P: the server goes down, comes up, or an administrator ended the session. */
    static boolean isConnectionError(SQLException error) {
        String state = error.getSQLState();
        return state != null && (state.startsWith("08") || state.startsWith("57P"));
    }

    static String firstLine(Exception error) {
        return String.valueOf(error.getMessage()).lines().findFirst().orElse("");
    }

    static void log(String format, Object... values) {
        System.err.printf(format + "%n", values);
    }

    /** The virtual machine ends when its shutdown hooks do: ours waits until main has finished what it has begun. */
    static void stopAtSigterm(Thread main) {
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            stopping = true;
            try {
                main.join();
            } catch (InterruptedException ignored) {
                Thread.currentThread().interrupt();
            }
        }));
    }
}
