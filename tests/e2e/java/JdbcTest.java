import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.Date;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.SQLFeatureNotSupportedException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.Properties;

/**
 * The Arrow Flight SQL JDBC driver against a running server. Prints a line for each check, {@code PASS name} or
 * {@code FAIL name: why}, and a {@code NOTE} for each thing that the driver itself does not do.
 *
 * <p>Arguments: plain port, TLS port, certificate file, user, password.
 */
public final class JdbcTest {
  private interface Check {
    void run() throws Exception;
  }

  private static int failures;
  private static String plainUrl;

  private JdbcTest() {}

  public static void main(String[] args) throws Exception {
    plainUrl = "jdbc:arrow-flight-sql://127.0.0.1:" + args[0] + "/?useEncryption=false";
    check("connect", JdbcTest::connects);
    check("tables for the checks", JdbcTest::prepareTables);
    check("query", JdbcTest::query);
    check("empty result", JdbcTest::emptyResult);
    check("every type is read", JdbcTest::types);
    check("update count", JdbcTest::updateCount);
    check("prepared query", JdbcTest::preparedQuery);
    check("parameter types", JdbcTest::parameterTypes);
    check("parameter metadata", JdbcTest::parameterMetadata);
    check("prepared update and batch", JdbcTest::preparedUpdate);
    check("every metadata method", JdbcTest::everyMetadataMethod);
    check("metadata: tables and types", JdbcTest::tables);
    check("metadata: columns", JdbcTest::columns);
    check("metadata: keys", JdbcTest::keys);
    check("metadata: facts that Tableau asks", JdbcTest::facts);
    check("errors", JdbcTest::errors);
    check("large result", JdbcTest::largeResult);
    check("closing a half-read result", JdbcTest::halfRead);
    check("catalog in the URL", JdbcTest::catalogInUrl);
    check("user and password over TLS", () -> secured(args[1], args[2], args[3], args[4]));
    check("wrong password", () -> wrongPassword(args[1], args[2], args[3]));
    System.exit(failures == 0 ? 0 : 1);
  }

  private static void check(String name, Check check) {
    try {
      check.run();
      System.out.println("PASS " + name);
    } catch (Throwable failure) {
      failures++;
      String text = String.valueOf(failure).replaceAll("\\s+", " ");
      System.out.println("FAIL " + name + ": " + text);
      failure.printStackTrace();
    }
  }

  private static Connection open() throws SQLException {
    return DriverManager.getConnection(plainUrl);
  }

  private static void expect(Object wanted, Object found, String what) {
    if (wanted == null ? found != null : !wanted.equals(found)) {
      throw new AssertionError(what + ": " + found + ", not " + wanted);
    }
  }

  private static void expect(boolean holds, String what) {
    if (!holds) {
      throw new AssertionError(what);
    }
  }

  private static void connects() throws SQLException {
    try (Connection connection = open()) {
      expect(connection.isValid(5), "valid");
      DatabaseMetaData metadata = connection.getMetaData();
      System.out.println("NOTE driver " + metadata.getDriverName() + " " + metadata.getDriverVersion());
      expect(metadata.getDatabaseProductName().toLowerCase().contains("trireme"), metadata.getDatabaseProductName());
      expect(!metadata.getDatabaseProductVersion().isEmpty(), "a version");
    }
  }

  private static void prepareTables() throws SQLException {
    try (Connection connection = open();
        Statement statement = connection.createStatement()) {
      statement.executeUpdate(
          "CREATE TABLE t (a BIGINT NOT NULL, s VARCHAR, d DECIMAL(10, 2), day DATE, at TIMESTAMP, f DOUBLE, b BOOLEAN,"
              + " PRIMARY KEY (a))");
      statement.executeUpdate("CREATE TABLE child (id BIGINT, a BIGINT REFERENCES t (a))");
      statement.executeUpdate("CREATE VIEW v AS SELECT a FROM t");
      int count =
          statement.executeUpdate(
              "INSERT INTO t VALUES (1, 'one', 1.50, DATE '2024-01-01', TIMESTAMP '2024-01-01 10:00:00', 0.5, true),"
                  + " (2, NULL, 2.50, DATE '2024-01-02', NULL, 1.5, false)");
      expect(2, count, "inserted");
    }
  }

  private static void query() throws SQLException {
    try (Connection connection = open();
        Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery("SELECT a, s FROM t ORDER BY a")) {
      expect(rows.next(), "a row");
      expect(1L, rows.getLong("a"), "a");
      expect("one", rows.getString(2), "s");
      expect(rows.next(), "another");
      expect(null, rows.getString("s"), "s");
      expect(rows.wasNull(), "was null");
      expect(!rows.next(), "no more");
    }
  }

  private static void emptyResult() throws SQLException {
    String sql = "SELECT a, s FROM t WHERE false";
    try (Connection connection = open()) {
      try (PreparedStatement statement = connection.prepareStatement(sql);
          ResultSet rows = statement.executeQuery()) {
        expect(2, rows.getMetaData().getColumnCount(), "columns of an empty result");
        expect("s", rows.getMetaData().getColumnLabel(2), "the second one");
        expect(!rows.next(), "no row");
      }
      try (Statement statement = connection.createStatement();
          ResultSet rows = statement.executeQuery(sql)) {
        // Drivers up to 18.3.0 skip batches without rows and so never replace the columns that they added twice.
        int columns = rows.getMetaData().getColumnCount();
        System.out.println("NOTE columns of an empty result of a plain statement: " + columns + " (2 is right)");
        expect(columns == 2 || columns == 4, "columns " + columns);
        expect("s", rows.getMetaData().getColumnLabel(2), "the second one");
        expect(!rows.next(), "no row");
      }
    }
  }

  private static void types() throws SQLException {
    try (Connection connection = open();
        Statement statement = connection.createStatement();
        ResultSet rows =
            statement.executeQuery(
                "SELECT a, s, d, day, at, f, b, X'CAFE' AS x, [1, 2] AS l, CAST(1 AS SMALLINT) AS i2, CAST(7 AS INT) AS i4"
                    + " FROM t ORDER BY a")) {
      ResultSetMetaData metadata = rows.getMetaData();
      expect(Types.BIGINT, metadata.getColumnType(1), "BIGINT");
      expect(Types.VARCHAR, metadata.getColumnType(2), "VARCHAR");
      expect(Types.DECIMAL, metadata.getColumnType(3), "DECIMAL");
      expect(Types.DATE, metadata.getColumnType(4), "DATE");
      expect(Types.TIMESTAMP, metadata.getColumnType(5), "TIMESTAMP");
      expect(rows.next(), "a row");
      expect(new BigDecimal("1.50"), rows.getBigDecimal(3), "decimal");
      expect("2024-01-01", rows.getDate(4).toString(), "date");
      expect(rows.getTimestamp(5) != null, "timestamp");
      expect(0.5, rows.getDouble(6), "double");
      expect(true, rows.getBoolean(7), "boolean");
      expect(true, Arrays.equals(new byte[] {(byte) 0xca, (byte) 0xfe}, rows.getBytes(8)), "bytes");
      expect(rows.getArray(9) != null, "list");
      for (int column = 1; column <= metadata.getColumnCount(); column++) {
        rows.getObject(column);
        rows.getString(column);
      }
    }
  }

  private static void updateCount() throws SQLException {
    try (Connection connection = open();
        Statement statement = connection.createStatement()) {
      expect(0, statement.executeUpdate("CREATE TABLE u (a BIGINT)"), "CREATE TABLE");
      expect(false, statement.execute("INSERT INTO u VALUES (1), (2), (3)"), "INSERT gives no result set");
      expect(3, statement.getUpdateCount(), "INSERT");
      expect(2, statement.executeUpdate("DELETE FROM u WHERE a > 1"), "DELETE");
      expect(true, statement.execute("SELECT count(*) FROM u"), "SELECT gives a result set");
      try (ResultSet rows = statement.getResultSet()) {
        expect(rows.next(), "a row");
        expect(1L, rows.getLong(1), "rows left");
      }
    }
  }

  private static void preparedQuery() throws SQLException {
    try (Connection connection = open();
        PreparedStatement statement = connection.prepareStatement("SELECT s FROM t WHERE a = ?")) {
      for (int round = 0; round < 3; round++) {
        statement.setLong(1, 1);
        try (ResultSet rows = statement.executeQuery()) {
          expect(rows.next(), "a row");
          expect("one", rows.getString(1), "s");
        }
      }
      statement.setLong(1, 99);
      try (ResultSet rows = statement.executeQuery()) {
        expect(!rows.next(), "no row");
      }
    }
  }

  private interface Setter {
    void set(PreparedStatement statement) throws SQLException;
  }

  private static void parameterTypes() throws SQLException {
    one("SELECT CAST(? AS BIGINT) AS v", s -> s.setLong(1, -42), "-42");
    one("SELECT CAST(? AS INT) AS v", s -> s.setInt(1, 42), "42");
    one("SELECT CAST(? AS SMALLINT) AS v", s -> s.setShort(1, (short) 7), "7");
    one("SELECT CAST(? AS DOUBLE) AS v", s -> s.setDouble(1, 1.5), "1.5");
    one("SELECT CAST(? AS REAL) AS v", s -> s.setFloat(1, 2.5f), "2.5");
    one("SELECT CAST(? AS VARCHAR) AS v", s -> s.setString(1, "naïve – 雪"), "naïve – 雪");
    one("SELECT CAST(? AS BOOLEAN) AS v", s -> s.setBoolean(1, true), "true");
    one("SELECT s AS v FROM t WHERE d = ?", s -> s.setBigDecimal(1, new BigDecimal("1.50")), "one");
    one("SELECT s AS v FROM t WHERE day = ?", s -> s.setDate(1, Date.valueOf("2024-01-01")), "one");
    one("SELECT s AS v FROM t WHERE b = ?", s -> s.setBoolean(1, true), "one");
    one("SELECT s AS v FROM t WHERE f < ?", s -> s.setDouble(1, 1.0), "one");
    one("SELECT CAST(? AS BIGINT) AS v", s -> s.setNull(1, Types.BIGINT), null);
    one("SELECT CAST(? AS VARCHAR) AS v", s -> s.setNull(1, Types.VARCHAR), null);
    // Driver 18.3.0 writes milliseconds whatever the unit of the parameter is, so the value itself says nothing of us.
    one("SELECT CAST(? AS TIMESTAMP) IS NOT NULL AS v",
        s -> s.setTimestamp(1, Timestamp.valueOf("2024-01-03 00:00:00")), "true");
    one("SELECT encode(CAST(? AS BYTEA), 'hex') AS v", s -> s.setBytes(1, new byte[] {1, 2, (byte) 255}), "0102ff");
    one("SELECT s AS v FROM t WHERE a = ? AND s = ? AND f > ?",
        s -> {
          s.setLong(1, 1);
          s.setString(2, "one");
          s.setDouble(3, 0.1);
        },
        "one");
  }

  private static void one(String sql, Setter setter, String wanted) throws SQLException {
    try (Connection connection = open();
        PreparedStatement statement = connection.prepareStatement(sql)) {
      setter.set(statement);
      try (ResultSet rows = statement.executeQuery()) {
        expect(rows.next(), "a row of " + sql);
        expect(wanted, rows.getString(1), sql);
      }
    } catch (Exception failure) {
      throw new SQLException(sql + ": " + failure.getMessage(), failure);
    }
  }

  private static void parameterMetadata() throws SQLException {
    try (Connection connection = open();
        PreparedStatement statement = connection.prepareStatement("SELECT a FROM t WHERE a = ? AND s = ?")) {
      expect(2, statement.getParameterMetaData().getParameterCount(), "parameters");
      expect(Types.BIGINT, statement.getParameterMetaData().getParameterType(1), "the first");
      expect(Types.VARCHAR, statement.getParameterMetaData().getParameterType(2), "the second");
      expect(1, statement.getMetaData().getColumnCount(), "columns before it runs");
    }
  }

  private static void preparedUpdate() throws SQLException {
    try (Connection connection = open()) {
      try (Statement statement = connection.createStatement()) {
        statement.executeUpdate("CREATE TABLE p (a BIGINT, s VARCHAR)");
      }
      try (PreparedStatement insert = connection.prepareStatement("INSERT INTO p VALUES (?, ?)")) {
        insert.setLong(1, 1);
        insert.setString(2, "x");
        expect(1, insert.executeUpdate(), "one row");
        for (int row = 0; row < 10; row++) {
          insert.setLong(1, 100 + row);
          insert.setString(2, "batch");
          insert.addBatch();
        }
        int[] counts = insert.executeBatch();
        System.out.println("NOTE executeBatch gives " + Arrays.toString(counts));
      }
      try (Statement statement = connection.createStatement();
          ResultSet rows = statement.executeQuery("SELECT count(*), count(DISTINCT a) FROM p")) {
        expect(rows.next(), "a row");
        expect(11L, rows.getLong(1), "rows");
        expect(11L, rows.getLong(2), "different rows");
      }
    }
  }

  /** Arguments by type and place: catalog, schema, table, pattern; then the other table of a cross reference. */
  private static Object[] arguments(Method method) {
    String[] words = {"trireme", "public", "t", "%"};
    String[] six = {"trireme", "public", "t", "trireme", "public", "child"};
    Class<?>[] types = method.getParameterTypes();
    Object[] arguments = new Object[types.length];
    int text = 0;
    for (int i = 0; i < types.length; i++) {
      if (types[i] == String.class) {
        arguments[i] = types.length == 6 ? six[text] : words[Math.min(text, 3)];
        text++;
      } else if (types[i] == boolean.class) {
        arguments[i] = true;
      } else if (types[i] == int.class) {
        arguments[i] = number(method.getName(), i);
      } else if (types[i] == Class.class) {
        arguments[i] = DatabaseMetaData.class;
      } else {
        arguments[i] = null;
      }
    }
    return arguments;
  }

  private static int number(String method, int place) {
    if (method.equals("supportsConvert")) {
      return Types.INTEGER;
    }
    if (method.endsWith("Visible") || method.endsWith("Detected") || method.startsWith("supportsResultSet")) {
      return place == 0 ? ResultSet.TYPE_FORWARD_ONLY : ResultSet.CONCUR_READ_ONLY;
    }
    return 1;
  }

  /** Whether the driver refuses a method without asking any server; its base class says so with a plain exception. */
  private static boolean isOfTheDriver(Throwable cause) {
    return cause instanceof SQLFeatureNotSupportedException
        || cause instanceof UnsupportedOperationException
        || String.valueOf(cause.getMessage()).equals("todo: implement this method");
  }

  private static void everyMetadataMethod() throws Exception {
    List<String> unsupported = new ArrayList<>();
    List<String> broken = new ArrayList<>();
    int called = 0;
    try (Connection connection = open()) {
      DatabaseMetaData metadata = connection.getMetaData();
      Method[] methods = DatabaseMetaData.class.getMethods();
      Arrays.sort(methods, Comparator.comparing(Method::toString));
      for (Method method : methods) {
        called++;
        try {
          Object result = method.invoke(metadata, arguments(method));
          if (result instanceof ResultSet) {
            drain((ResultSet) result);
          }
        } catch (InvocationTargetException thrown) {
          Throwable cause = thrown.getCause();
          if (isOfTheDriver(cause)) {
            unsupported.add(method.getName());
          } else {
            broken.add(method.getName() + ": " + cause);
          }
        } catch (SQLException failure) {
          broken.add(method.getName() + " while read: " + failure);
        }
      }
    }
    System.out.println("NOTE metadata methods called: " + called);
    System.out.println("NOTE refused by the driver itself: " + unsupported);
    expect(broken.isEmpty(), broken.toString());
  }

  private static int drain(ResultSet rows) throws SQLException {
    int count = 0;
    try (rows) {
      int columns = rows.getMetaData().getColumnCount();
      while (rows.next()) {
        count++;
        for (int column = 1; column <= columns; column++) {
          rows.getObject(column);
        }
      }
    }
    return count;
  }

  private static List<String> names(ResultSet rows, String column) throws SQLException {
    List<String> names = new ArrayList<>();
    try (rows) {
      while (rows.next()) {
        names.add(rows.getString(column));
      }
    }
    return names;
  }

  private static void tables() throws SQLException {
    try (Connection connection = open()) {
      DatabaseMetaData metadata = connection.getMetaData();
      expect(Arrays.asList("trireme"), names(metadata.getCatalogs(), "TABLE_CAT"), "catalogs");
      List<String> schemas = names(metadata.getSchemas(), "TABLE_SCHEM");
      expect(schemas.containsAll(Arrays.asList("information_schema", "public", "system")), schemas.toString());
      List<String> all = names(metadata.getTables(null, "public", "%", null), "TABLE_NAME");
      expect(all.containsAll(Arrays.asList("t", "child", "v")), all.toString());
      List<String> views = names(metadata.getTables("trireme", "public", "%", new String[] {"VIEW"}), "TABLE_NAME");
      expect(Arrays.asList("v"), views, "views");
      expect(names(metadata.getTableTypes(), "TABLE_TYPE").contains("VIEW"), "table types");
      expect(0, names(metadata.getTables(null, null, "no such table", null), "TABLE_NAME").size(), "nothing");
    }
  }

  private static void columns() throws SQLException {
    try (Connection connection = open();
        ResultSet rows = connection.getMetaData().getColumns(null, "public", "t", "%")) {
      List<String> names = new ArrayList<>();
      while (rows.next()) {
        names.add(rows.getString("COLUMN_NAME"));
        expect(rows.getInt("ORDINAL_POSITION") == names.size(), "positions in order");
        expect(rows.getString("TYPE_NAME") != null && !rows.getString("TYPE_NAME").isEmpty(), "a type name");
        if (rows.getString("COLUMN_NAME").equals("a")) {
          expect("NO", rows.getString("IS_NULLABLE"), "a is not null");
          expect(Types.BIGINT, rows.getInt("DATA_TYPE"), "a's type");
        }
        if (rows.getString("COLUMN_NAME").equals("d")) {
          expect(10, rows.getInt("COLUMN_SIZE"), "precision of d");
          expect(2, rows.getInt("DECIMAL_DIGITS"), "scale of d");
        }
      }
      expect(Arrays.asList("a", "s", "d", "day", "at", "f", "b"), names, "columns");
    }
  }

  private static void keys() throws SQLException {
    try (Connection connection = open()) {
      DatabaseMetaData metadata = connection.getMetaData();
      expect(Arrays.asList("a"), names(metadata.getPrimaryKeys("trireme", "public", "t"), "COLUMN_NAME"), "primary");
      expect(Arrays.asList("a"), names(metadata.getPrimaryKeys(null, null, "t"), "COLUMN_NAME"), "primary by name");
      expect(Arrays.asList("t"), names(metadata.getImportedKeys("trireme", "public", "child"), "PKTABLE_NAME"), "imported");
      expect(Arrays.asList("child"), names(metadata.getExportedKeys("trireme", "public", "t"), "FKTABLE_NAME"), "exported");
      ResultSet cross = metadata.getCrossReference("trireme", "public", "t", "trireme", "public", "child");
      expect(Arrays.asList("a"), names(cross, "FKCOLUMN_NAME"), "cross reference");
    }
  }

  private static void facts() throws SQLException {
    try (Connection connection = open()) {
      DatabaseMetaData metadata = connection.getMetaData();
      expect("\"", metadata.getIdentifierQuoteString(), "quote");
      expect(false, metadata.isReadOnly(), "read only");
      expect(false, metadata.supportsTransactions(), "transactions");
      expect(true, metadata.supportsGroupBy(), "GROUP BY");
      expect(true, metadata.supportsOuterJoins(), "outer joins");
      expect(true, metadata.supportsUnionAll(), "UNION ALL");
      expect(true, metadata.supportsCorrelatedSubqueries(), "correlated subqueries");
      expect(!metadata.getSQLKeywords().isEmpty(), "keywords");
      expect(!metadata.getNumericFunctions().isEmpty(), "numeric functions");
    }
  }

  private static void errors() throws SQLException {
    try (Connection connection = open();
        Statement statement = connection.createStatement()) {
      for (String sql : new String[] {"SELECT * FROM no_such_table", "SELEC 1", "SELECT 1 / (a - 1) FROM t"}) {
        try (ResultSet rows = statement.executeQuery(sql)) {
          drain(rows);
          throw new AssertionError(sql + " gave no error");
        } catch (SQLException failure) {
          expect(failure.getMessage() != null && !failure.getMessage().contains("panicked"), failure.getMessage());
        }
      }
      try (ResultSet rows = statement.executeQuery("SELECT 1")) {
        expect(rows.next(), "the connection goes on");
      }
    }
  }

  private static void largeResult() throws SQLException {
    try (Connection connection = open();
        Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery("SELECT value AS n, 'text' || value AS s FROM range(1000000)")) {
      long sum = 0;
      long count = 0;
      while (rows.next()) {
        sum += rows.getLong(1);
        count++;
      }
      expect(1_000_000L, count, "rows");
      expect(499_999_500_000L, sum, "sum");
    }
  }

  private static void halfRead() throws SQLException {
    try (Connection connection = open()) {
      for (int round = 0; round < 5; round++) {
        try (Statement statement = connection.createStatement();
            ResultSet rows = statement.executeQuery("SELECT a.value FROM range(1000000) a CROSS JOIN range(1000) b")) {
          expect(rows.next(), "a row");
        }
      }
      expect(connection.isValid(5), "valid afterwards");
    }
  }

  private static void catalogInUrl() throws SQLException {
    Connection connection = DriverManager.getConnection(plainUrl + "&catalog=trireme");
    try (Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery("SELECT count(*) FROM t")) {
      expect(rows.next(), "a row");
      expect(2L, rows.getLong(1), "rows");
    }
    try {
      connection.close();
    } catch (SQLException failure) {
      // Driver 18.3.0 shuts its channel down first and then wants to close the session over it.
      expect(failure.getMessage().contains("Channel shutdown invoked"), failure.getMessage());
      System.out.println("NOTE close after catalog in the URL: " + failure.getMessage());
    }
  }

  private static Connection openSecured(String port, String certificate, String user, String password) throws SQLException {
    Properties properties = new Properties();
    properties.put("user", user);
    properties.put("password", password);
    properties.put("useEncryption", "true");
    properties.put("tlsRootCerts", certificate);
    return DriverManager.getConnection("jdbc:arrow-flight-sql://localhost:" + port, properties);
  }

  private static void secured(String port, String certificate, String user, String password) throws SQLException {
    try (Connection connection = openSecured(port, certificate, user, password);
        Statement statement = connection.createStatement()) {
      statement.executeUpdate("SET trireme.batch_rows = 77");
      try (ResultSet rows = statement.executeQuery("SHOW trireme.batch_rows")) {
        expect(rows.next(), "a row");
        expect("77", rows.getString(rows.getMetaData().getColumnCount()), "SET holds");
      }
    }
  }

  private static void wrongPassword(String port, String certificate, String user) throws SQLException {
    try (Connection connection = openSecured(port, certificate, user, "wrong")) {
      throw new AssertionError("connected with a wrong password");
    } catch (SQLException failure) {
      expect(failure.getMessage().toUpperCase().contains("UNAUTHENTICATED"), failure.getMessage());
    }
  }
}
