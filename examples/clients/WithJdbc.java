// Read scores with JDBC. Its driver does not look at PGHOST and its likes, so they are put into a URL here.

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.Properties;

public class WithJdbc {
    private static final String QUERY =
        "SELECT s.id, p.area FROM sides s JOIN ml.triangle p USING (a, b, c) WHERE s.id <= ? ORDER BY s.id";

    public static void main(String[] arguments) throws SQLException {
        String url = String.format("jdbc:postgresql://%s:%s/%s",
            System.getenv("PGHOST"), System.getenv("PGPORT"), System.getenv("PGDATABASE"));
        Properties properties = new Properties();
        properties.setProperty("user", System.getenv("PGUSER"));
        if (System.getenv("PGPASSWORD") != null) {
            properties.setProperty("password", System.getenv("PGPASSWORD"));
        }
        try (Connection connection = DriverManager.getConnection(url, properties);
             PreparedStatement statement = connection.prepareStatement(QUERY)) {
            statement.setInt(1, 3);
            try (ResultSet rows = statement.executeQuery()) {
                while (rows.next()) {
                    System.out.println(rows.getInt("id") + " " + rows.getDouble("area"));
                }
            }
        }
    }
}
