-- The Star Schema Benchmark's tables from TPC-H's: one COPY each, read from TPC-H's views, written as Parquet.
-- As in SSB: lineorder is lineitem joined with orders and priced in whole cents, dates are integers yyyymmdd, cities are the
-- nation's first nine letters and a digit, parts have a category (MFGR#mc) and a brand (MFGR#mcbb).
COPY (
    SELECT
        l_orderkey AS lo_orderkey, l_linenumber AS lo_linenumber, o_custkey AS lo_custkey, l_partkey AS lo_partkey,
        l_suppkey AS lo_suppkey, CAST(strftime(o_orderdate, '%Y%m%d') AS INTEGER) AS lo_orderdate,
        o_orderpriority AS lo_orderpriority, o_shippriority AS lo_shippriority, CAST(l_quantity AS INTEGER) AS lo_quantity,
        CAST(l_extendedprice * 100 AS BIGINT) AS lo_extendedprice, CAST(o_totalprice * 100 AS BIGINT) AS lo_ordtotalprice,
        CAST(l_discount * 100 AS INTEGER) AS lo_discount,
        CAST(l_extendedprice * (100 - l_discount * 100) AS BIGINT) AS lo_revenue,
        CAST(90000 + (l_partkey % 20001) * 6 // 10 AS INTEGER) AS lo_supplycost, CAST(l_tax * 100 AS INTEGER) AS lo_tax,
        CAST(strftime(l_commitdate, '%Y%m%d') AS INTEGER) AS lo_commitdate, l_shipmode AS lo_shipmode
    FROM lineitem JOIN orders ON l_orderkey = o_orderkey
) TO '{out}/lineorder.parquet' (FORMAT parquet);
COPY (
    SELECT
        CAST(strftime(d, '%Y%m%d') AS INTEGER) AS d_datekey, strftime(d, '%B %-d, %Y') AS d_date, dayname(d) AS d_dayofweek,
        monthname(d) AS d_month, CAST(year(d) AS INTEGER) AS d_year, CAST(year(d) * 100 + month(d) AS INTEGER) AS d_yearmonthnum,
        strftime(d, '%b%Y') AS d_yearmonth, CAST(dayofweek(d) + 1 AS INTEGER) AS d_daynuminweek,
        CAST(day(d) AS INTEGER) AS d_daynuminmonth, CAST(dayofyear(d) AS INTEGER) AS d_daynuminyear,
        CAST(month(d) AS INTEGER) AS d_monthnuminyear, CAST((dayofyear(d) - 1) // 7 + 1 AS INTEGER) AS d_weeknuminyear
    FROM (SELECT CAST(range AS DATE) AS d FROM range(DATE '1992-01-01', DATE '1999-01-01', INTERVAL 1 DAY))
) TO '{out}/dates.parquet' (FORMAT parquet);
COPY (
    SELECT
        c_custkey, c_name, c_address, rpad(n_name, 9, ' ')[1:9] || CAST(c_custkey % 10 AS VARCHAR) AS c_city, n_name AS c_nation,
        r_name AS c_region, c_phone, c_mktsegment
    FROM customer JOIN nation ON c_nationkey = n_nationkey JOIN region ON n_regionkey = r_regionkey
) TO '{out}/customer.parquet' (FORMAT parquet);
COPY (
    SELECT
        s_suppkey, s_name, s_address, rpad(n_name, 9, ' ')[1:9] || CAST(s_suppkey % 10 AS VARCHAR) AS s_city, n_name AS s_nation,
        r_name AS s_region, s_phone
    FROM supplier JOIN nation ON s_nationkey = n_nationkey JOIN region ON n_regionkey = r_regionkey
) TO '{out}/supplier.parquet' (FORMAT parquet);
COPY (
    SELECT
        p_partkey, p_name, 'MFGR#' || m AS p_mfgr, 'MFGR#' || m || c AS p_category, 'MFGR#' || m || c || b AS p_brand1,
        split_part(p_name, ' ', 1) AS p_color, p_type, p_size, p_container
    FROM (SELECT *, p_partkey % 5 + 1 AS m, p_partkey // 5 % 5 + 1 AS c, p_partkey // 25 % 40 + 1 AS b FROM part)
) TO '{out}/part.parquet' (FORMAT parquet);
