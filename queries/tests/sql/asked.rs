//! What Grafana and Metabase (through JDBC) ask a PostgreSQL before anybody asks something.

/// Grafana's data source: version, extensions, tables within the search path, columns of one.
pub(crate) const GRAFANA: &[&str] = &[
    "SELECT current_setting('server_version_num')::int/100 as version",
    "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'",
    r#"SELECT
        CASE WHEN
              quote_ident(table_schema) IN (
              SELECT
                CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
              FROM
                generate_series(
                  array_lower(string_to_array(current_setting('search_path'),','),1),
                  array_upper(string_to_array(current_setting('search_path'),','),1)
                ) as i,
                string_to_array(current_setting('search_path'),',') s
              )
          THEN quote_ident(table_name)
          ELSE quote_ident(table_schema) || '.' || quote_ident(table_name)
        END AS "table"
        FROM information_schema.tables
        WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog')
        ORDER BY 1"#,
    r#"SELECT quote_ident(column_name) AS "column", data_type AS "type"
        FROM information_schema.columns
        WHERE
          CASE WHEN array_length(parse_ident('public.events'),1) = 2
            THEN quote_ident(table_schema) = (parse_ident('public.events'))[1]
              AND quote_ident(table_name) = (parse_ident('public.events'))[2]
            ELSE quote_ident(table_name) = 'public.events'
          END"#,
    COLUMNS_OF_A_BARE_TABLE,
    "SELECT time AS \"time\", count(*) FROM events WHERE time BETWEEN '2026-01-01T00:00:00Z' AND '2026-02-01T00:00:00Z' GROUP BY 1",
];

/// Grafana's columns of a table that is named without its schema.
pub(crate) const COLUMNS_OF_A_BARE_TABLE: &str = r#"SELECT quote_ident(column_name) AS "column", data_type AS "type"
        FROM information_schema.columns
        WHERE
          CASE WHEN array_length(parse_ident('epochs'),1) = 2
            THEN quote_ident(table_schema) = (parse_ident('epochs'))[1]
              AND quote_ident(table_name) = (parse_ident('epochs'))[2]
            ELSE quote_ident(table_name) = 'epochs'
              AND quote_ident(table_schema) IN (
                SELECT
                  CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
                FROM
                  generate_series(
                    array_lower(string_to_array(current_setting('search_path'),','),1),
                    array_upper(string_to_array(current_setting('search_path'),','),1)
                  ) as i,
                  string_to_array(current_setting('search_path'),',') s
              )
          END
        ORDER BY 1 LIMIT 2"#;

/// Metabase: its session, schemas, privileges, tables.
pub(crate) const METABASE: &[&str] = &[
    "SET extra_float_digits = 3",
    "SET application_name = 'Metabase v0.55.1'",
    "SHOW TRANSACTION ISOLATION LEVEL",
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
    r#"SELECT nspname AS "TABLE_SCHEM", current_database() AS "TABLE_CATALOG" FROM pg_catalog.pg_namespace
       WHERE nspname <> 'pg_toast' AND (nspname !~ '^pg_temp_' OR nspname = (pg_catalog.current_schemas(true))[1])
       ORDER BY "TABLE_SCHEM""#,
    r#"with table_privileges as (
         select NULL as role, t.schemaname as schema, t.objectname as table,
           pg_catalog.has_any_column_privilege(current_user, '"' || replace(t.schemaname, '"', '""') || '"' || '.' || '"' || replace(t.objectname, '"', '""') || '"', 'select') as select,
           pg_catalog.has_table_privilege(current_user, '"' || replace(t.schemaname, '"', '""') || '"' || '.' || '"' || replace(t.objectname, '"', '""') || '"', 'delete') as delete
         from (
           select schemaname, tablename as objectname from pg_catalog.pg_tables
           union
           select schemaname, viewname as objectname from pg_catalog.pg_views
           union
           select schemaname, matviewname as objectname from pg_catalog.pg_matviews
         ) t
         where t.schemaname !~ '^pg_' and t.schemaname <> 'information_schema'
           and pg_catalog.has_schema_privilege(current_user, t.schemaname, 'usage')
        )
        select t.* from table_privileges t"#,
    r#"SELECT "n"."nspname" AS "schema", "c"."relname" AS "name", CASE "c"."relkind" WHEN 'r' THEN 'TABLE' WHEN 'v' THEN 'VIEW' ELSE NULL END AS "type",
         "d"."description" AS "description", "stat"."n_live_tup" AS "estimated_row_count"
       FROM "pg_catalog"."pg_class" AS "c" INNER JOIN "pg_catalog"."pg_namespace" AS "n" ON "c"."relnamespace" = "n"."oid"
       LEFT JOIN "pg_catalog"."pg_description" AS "d" ON ("c"."oid" = "d"."objoid") AND ("d"."objsubid" = '0') AND ("d"."classoid" = 'pg_class'::regclass)
       LEFT JOIN "pg_stat_user_tables" AS "stat" ON ("n"."nspname" = "stat"."schemaname") AND ("c"."relname" = "stat"."relname")
       WHERE ("n"."nspname" !~ '^pg_') AND ("n"."nspname" <> 'information_schema') AND c.relkind in ('r', 'p', 'v', 'f', 'm') AND ("n"."nspname" IN ('public'))
       ORDER BY "type" ASC, "schema" ASC, "name" ASC"#,
    FOREIGN_KEYS,
    INDEXED_COLUMNS,
    "show timezone",
];

/// Metabase's foreign keys, of which there are none.
pub(crate) const FOREIGN_KEYS: &str = r#"SELECT "fk_ns"."nspname" AS "fk-table-schema", "fk_table"."relname" AS "fk-table-name", "fk_column"."attname" AS "fk-column-name",
         "pk_ns"."nspname" AS "pk-table-schema", "pk_table"."relname" AS "pk-table-name", "pk_column"."attname" AS "pk-column-name"
       FROM "pg_constraint" AS "c" INNER JOIN "pg_class" AS "fk_table" ON "c"."conrelid" = "fk_table"."oid"
       INNER JOIN "pg_namespace" AS "fk_ns" ON "c"."connamespace" = "fk_ns"."oid"
       INNER JOIN "pg_attribute" AS "fk_column" ON "c"."conrelid" = "fk_column"."attrelid"
       INNER JOIN "pg_class" AS "pk_table" ON "c"."confrelid" = "pk_table"."oid"
       INNER JOIN "pg_namespace" AS "pk_ns" ON "pk_table"."relnamespace" = "pk_ns"."oid"
       INNER JOIN "pg_attribute" AS "pk_column" ON "c"."confrelid" = "pk_column"."attrelid"
       WHERE ("fk_ns"."nspname" !~ '^information_schema|catalog_history|pg_') AND ("c"."contype" = 'f'::char)
         AND ("fk_column"."attnum" = ANY("c"."conkey")) AND ("pk_column"."attnum" = ANY("c"."confkey"))
         AND ("fk_ns"."nspname" IN ('public'))
       ORDER BY "fk-table-schema" ASC, "fk-table-name" ASC"#;

/// Which columns the first of an index are.
pub(crate) const INDEXED_COLUMNS: &str = r#"SELECT DISTINCT "tmp"."table-schema", "tmp"."table-name", "tmp"."field-name" FROM (
         SELECT "n"."nspname" AS "table-schema", "t"."relname" AS "table-name", "a"."attname" AS "field-name"
         FROM "pg_catalog"."pg_index" AS "i" INNER JOIN "pg_catalog"."pg_class" AS "t" ON "t"."oid" = "i"."indrelid"
         INNER JOIN "pg_catalog"."pg_namespace" AS "n" ON "n"."oid" = "t"."relnamespace"
         INNER JOIN "pg_catalog"."pg_attribute" AS "a" ON "a"."attrelid" = "t"."oid"
         WHERE "i"."indisvalid" AND "a"."attnum" = ANY("i"."indkey")) AS "tmp""#;
