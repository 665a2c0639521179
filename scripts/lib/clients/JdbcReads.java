// The PostgreSQL JDBC driver against the wire: host and port as arguments. Says nothing when all is well.
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Timestamp;
import java.time.Instant;
import java.util.HashSet;
import java.util.Set;

class JdbcReads {
    static void want(boolean ok, String what, Object found) {
        if (!ok) {
            throw new AssertionError(what + ": " + found);
        }
    }

    public static void main(String[] arguments) throws Exception {
        String url = "jdbc:postgresql://" + arguments[0] + ":" + arguments[1] + "/counterflow?user=tester";
        try (Connection connection = DriverManager.getConnection(url)) {
            try (PreparedStatement count = connection.prepareStatement(
                    "SELECT count(*) FROM events WHERE source = ? AND time > ? AND line >= ?")) {
                // More often than the driver's threshold, so that it is prepared on the server, and in binary.
                for (int n = 0; n < 8; n++) {
                    count.setString(1, "http");
                    count.setTimestamp(2, Timestamp.from(Instant.parse("2020-01-01T00:00:00Z")));
                    count.setLong(3, 0);
                    try (ResultSet rows = count.executeQuery()) {
                        want(rows.next() && rows.getLong(1) == 100, "count", n);
                    }
                }
            }
            // What Metabase asks a driver for.
            DatabaseMetaData about = connection.getMetaData();
            Set<String> tables = new HashSet<>();
            try (ResultSet rows = about.getTables(null, "public", "%", new String[] {"TABLE", "VIEW"})) {
                while (rows.next()) {
                    tables.add(rows.getString("TABLE_NAME"));
                }
            }
            want(tables.contains("events") && tables.contains("alerts_now"), "tables", tables);
            Set<String> columns = new HashSet<>();
            try (ResultSet rows = about.getColumns(null, "public", "events", "%")) {
                while (rows.next()) {
                    columns.add(rows.getString("COLUMN_NAME"));
                }
            }
            want(columns.contains("received_at"), "columns", columns);
            try (ResultSet rows = about.getSchemas()) {
                want(rows.next(), "schemas", "none");
            }
            connection.setAutoCommit(false);
            try (PreparedStatement parts = connection.prepareStatement("SELECT value FROM generate_series(1, 5000)")) {
                parts.setFetchSize(500);
                int read = 0;
                try (ResultSet rows = parts.executeQuery()) {
                    while (rows.next()) {
                        read++;
                    }
                }
                want(read == 5000, "parts", read);
            }
            connection.rollback();
            try (PreparedStatement drop = connection.prepareStatement("DELETE FROM events")) {
                drop.executeUpdate();
                want(false, "write", "taken");
            } catch (SQLException refused) {
                want("25006".equals(refused.getSQLState()), "state", refused.getSQLState());
            }
        }
    }
}
