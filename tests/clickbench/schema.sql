-- ClickBench's `hits` with its skew, seeded: {rows} rows. Few counters, users and regions have most of the rows; search phrases
-- and phone models are mostly empty; URLs and titles repeat; hashes are of the strings. Columns that no query reads are left out.
COPY (
    WITH base AS (
        SELECT
            i,
            hash(i * 7 + {seed}) AS h1, hash(i * 11 + {seed}) AS h2, hash(i * 13 + {seed}) AS h3, hash(i * 17 + {seed}) AS h4,
            -- A power law: most of these are small.
            CAST(floor(pow((hash(i * 19 + {seed}) % 1000003) / 1000003.0, 4) * 200000) AS BIGINT) AS user_rank,
            CAST(floor(pow((hash(i * 23 + {seed}) % 1000003) / 1000003.0, 5) * 5000) AS BIGINT) AS counter_rank,
            CAST(floor(pow((hash(i * 29 + {seed}) % 1000003) / 1000003.0, 3) * {rows} / 8) AS BIGINT) AS page
        FROM range({rows}) t(i)
    ),
    named AS (
        SELECT
            *,
            CASE WHEN page % 97 = 0 THEN '' ELSE 'http://' || CASE WHEN page % 41 = 0 THEN 'www.google.' ELSE 'site' || page % 3001 || '.' END
                || (['com', 'ru', 'net', 'org'])[page % 4 + 1] || '/' || CASE WHEN page % 53 = 0 THEN 'google/' ELSE '' END || 'p' || page
                || '?q=' || hash(page) % 99991 END AS url,
            CASE WHEN page % 13 = 0 THEN '' ELSE 'Заголовок ' || page % 20011 || CASE WHEN page % 59 = 0 THEN ' Google' ELSE ' — страница' END END AS title,
            CASE WHEN h1 % 5 < 2 THEN '' ELSE 'https://' || CASE WHEN h1 % 3 = 0 THEN 'www.' ELSE '' END || 'ref' || h1 % 733 || '.com/' || h1 % 5003 END AS referer,
            CASE WHEN h2 % 100 < 87 THEN '' ELSE 'phrase ' || CAST(floor(pow((h2 // 100 % 10007) / 10007.0, 3) * 30000) AS BIGINT) END AS phrase
        FROM base
    )
    SELECT
        CAST(h3 % 9223372036854775807 AS BIGINT) AS "WatchID", CAST(1 AS SMALLINT) AS "JavaEnable", title AS "Title",
        TIMESTAMP '2013-07-01 00:00:00' + to_seconds(CAST(h4 % 2678400 AS INTEGER)) AS "EventTime",
        CAST(TIMESTAMP '2013-07-01 00:00:00' + to_seconds(CAST(h4 % 2678400 AS INTEGER)) AS DATE) AS "EventDate",
        CAST(CASE WHEN counter_rank = 0 THEN 62 ELSE counter_rank * 37 % 100000 END AS INTEGER) AS "CounterID",
        CAST(CAST(hash(user_rank % 90001) % 2147483647 AS BIGINT) - 1073741824 AS INTEGER) AS "ClientIP",
        CAST(floor(pow((h1 // 7 % 9973) / 9973.0, 3) * 9000) AS INTEGER) AS "RegionID",
        CASE WHEN user_rank = 77 THEN 435090932899640449 ELSE CAST(hash(user_rank + 5) % 9223372036854775807 AS BIGINT) END AS "UserID",
        url AS "URL", referer AS "Referer", CAST(CASE WHEN h2 // 3 % 100 < 13 THEN 1 ELSE 0 END AS SMALLINT) AS "IsRefresh",
        CAST((hash(page + 1) % 2000) AS SMALLINT) AS "ResolutionWidth", CAST((hash(page + 2) % 1500) AS SMALLINT) AS "ResolutionHeight",
        CAST(CASE WHEN h3 % 100 < 95 THEN 0 ELSE h3 // 100 % 90 END AS SMALLINT) AS "MobilePhone",
        CASE WHEN h3 % 100 < 95 THEN '' ELSE 'model ' || h3 // 100 % 160 END AS "MobilePhoneModel",
        CAST(CAST(h4 % 10 AS INTEGER) - 1 AS SMALLINT) AS "TraficSourceID",
        CAST(CASE WHEN phrase = '' THEN 0 ELSE h4 // 10 % 40 END AS SMALLINT) AS "SearchEngineID", phrase AS "SearchPhrase",
        CAST(CASE WHEN h1 % 1000 < 994 THEN 0 ELSE h1 // 1000 % 60 + 1 END AS SMALLINT) AS "AdvEngineID",
        CAST(h2 % 1900 AS SMALLINT) AS "WindowClientWidth", CAST(h3 % 1100 AS SMALLINT) AS "WindowClientHeight",
        CAST(CASE WHEN h2 % 7 = 0 THEN 1 ELSE 0 END AS SMALLINT) AS "IsLink", CAST(CASE WHEN h2 % 31 = 0 THEN 1 ELSE 0 END AS SMALLINT) AS "IsDownload",
        CAST(CASE WHEN h1 % 11 = 0 THEN 1 ELSE 0 END AS SMALLINT) AS "DontCountHits",
        CASE WHEN url = '' THEN 3594120000172545465 ELSE CAST(hash(referer) % 9223372036854775807 AS BIGINT) END AS "RefererHash",
        CASE WHEN page % 43 = 0 THEN 2868770270353813622 ELSE CAST(hash(url) % 9223372036854775807 AS BIGINT) END AS "URLHash"
    FROM named
) TO '{out}/hits.parquet' (FORMAT parquet);
