import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/**
 * Takes orders and writes their invoices, until SIGTERM.        java -cp postgresql.jar Worker.java
 *
 * <p>Orders are leased to us, some at a time. For each: first the ack, then the work, then the commit of both. If the lease
 * is over, because others took too long, the ack fails and the work is not begun: another worker has the order. If we die,
 * the invoice and the ack were never there, and when the lease ends another worker gets the order.
 */
public class Worker {
    /** Behind a PgBouncer before 1.21 in transaction mode, add prepareThreshold=0: it knows no prepared statements there. */
    static final String URL = System.getenv().getOrDefault("JDBC_URL", "jdbc:postgresql://localhost/shop");

    /** The lease lasts mq.visibility_timeout, 30 s unless set; visibility_timeout => '5 minutes' is for slower work. */
    static final String RECEIVE =
            "SELECT id, receipt, payload->>'order', failures FROM mq.receive('orders', max_messages => 10)";

    /** This takes nothing, so nothing is lost when it is broken off. */
    static final String WAIT = "CALL mq.wait('orders', timeout => '20 s')";

    static final String LEASE_LOST = "MQ001";
    static final String CONNECTION_LOST = "08006";

    record Message(long id, UUID receipt, String order, int failures) {}

    static final CountDownLatch STOP = new CountDownLatch(1);
    static volatile Connection waiting;

    public static void main(String[] args) throws InterruptedException {
        stopAtSigterm(Thread.currentThread());
        long backoff = 250;
        while (!stopping()) {
            try (Connection db = DriverManager.getConnection(URL)) {
                while (!stopping()) {
                    work(db);
                    backoff = 250; // only now: a pooler lets us connect when the server is away
                }
            } catch (SQLException error) { // no connection, no right, no queue, a standby: it may be well later
                if (!stopping()) {
                    log("%s; once more in %d ms", firstLine(error), backoff);
                }
                STOP.await(backoff, TimeUnit.MILLISECONDS);
                backoff = Math.min(2 * backoff, 5_000);
            }
        }
        System.out.println("stopped");
    }

    static boolean stopping() {
        return STOP.getCount() == 0;
    }

    static void work(Connection db) throws SQLException {
        List<Message> messages = receive(db);
        if (messages.isEmpty()) {
            waitForMessages(db);
        }
        for (Message message : messages) {
            if (stopping()) { // for the others, now and not when the lease ends
                settle(db, "SELECT mq.release_batch(ARRAY[?], strict => false)", message);
            } else {
                handle(db, message);
            }
        }
    }

    static void waitForMessages(Connection db) throws SQLException {
        try (Statement statement = db.createStatement()) {
            waiting = db;
            if (!stopping()) {
                statement.execute(WAIT);
            }
        } finally {
            waiting = null;
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
            settle(db, "SELECT mq.ack(?)", message);
            writeInvoice(db, Long.parseLong(message.order));
            db.commit();
        } catch (SQLException | RuntimeException error) {
            if (!db.isValid(5)) {
                throw new SQLException(error.getMessage(), CONNECTION_LOST, error);
            }
            db.rollback();
            if (error instanceof SQLException sql && LEASE_LOST.equals(sql.getSQLState())) {
                log("message %d: lease lost, not begun", message.id);
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

    static void settle(Connection db, String query, Message message) throws SQLException {
        try (PreparedStatement statement = db.prepareStatement(query)) {
            statement.setObject(1, message.receipt);
            statement.execute();
        }
    }

    /** Not strict: should the lease be over by now, then others have the message, and that is that. */
    static void nack(Connection db, Message message, long delay) throws SQLException {
        try (PreparedStatement nack =
                db.prepareStatement("SELECT mq.nack_batch(ARRAY[?], delay => make_interval(secs => ?), strict => false)")) {
            nack.setObject(1, message.receipt);
            nack.setDouble(2, delay);
            nack.execute();
        }
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
            STOP.countDown();
            try {
                Connection db = waiting;
                if (db != null) {
                    db.abort(Runnable::run);
                }
                main.join();
            } catch (SQLException | InterruptedException ignored) {
                Thread.currentThread().interrupt();
            }
        }));
    }
}
