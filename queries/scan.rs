//! A table of history as it is scanned: the data files of one snapshot of the Delta log, read as Parquet with nothing between.
//!
//! The provider of `delta-rs` is right for every Delta table. It evaluates each filter twice, carries a column that names the
//! file of each row, and transforms each batch. Our tables need none of it: no deletion vectors, no renamed columns, one
//! partition column. A table that somebody else has changed so that it does is left to that provider ([`cf_history::Plain`]).
//!
//! Files are passed over by the day of their partition and by the times that the log says of them; row groups and pages by their
//! own statistics and bloom filters. Memory: the list of files; it goes with the query.

use std::sync::Arc;

use async_trait::async_trait;
use cf_history::{Plain, Stored, Table};
use cf_types::Time;
use datafusion::{
    arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef},
    catalog::{Session, TableProvider},
    common::{
        ColumnStatistics, DFSchema, Statistics, config::TableParquetOptions, project_schema,
        pruning::PrunableStatistics, stats::Precision,
    },
    datasource::{
        TableType,
        listing::PartitionedFile,
        physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource, parquet::CachedParquetFileReaderFactory},
        source::DataSourceExec,
        table_schema::TableSchema,
    },
    error::DataFusionError,
    execution::object_store::ObjectStoreUrl,
    logical_expr::{Expr, TableProviderFilterPushDown, utils::conjunction},
    object_store::{ObjectMeta, path::Path},
    physical_optimizer::pruning::PruningPredicateBuilder,
    physical_plan::{ExecutionPlan, empty::EmptyExec},
    scalar::ScalarValue,
};

/// The column that parts the files of every table.
const DAY: &str = "day";

const DAY_MICROS: i64 = 86_400_000_000;

/// The data files of a table as they were when it was opened.
#[derive(Debug)]
pub(crate) struct Files {
    /// As it is asked: columns in the order of the table.
    schema: SchemaRef,
    /// As it is read: the partition's column last.
    read: TableSchema,
    store: ObjectStoreUrl,
    files: Vec<PartitionedFile>,
    /// What the log says of each of them, about the columns of `outline`.
    known: Vec<Arc<Statistics>>,
    outline: SchemaRef,
}

impl Files {
    /// The files of a snapshot.
    pub(crate) fn new(plain: &Plain, table: Table) -> Result<Files, DataFusionError> {
        let schema = viewed(&plain.schema);
        let own: Vec<FieldRef> = schema.fields().iter().filter(|field| field.name() != DAY).cloned().collect();
        let day = Arc::new(Field::new(DAY, DataType::Date32, true));
        let time = schema.field_with_name(table.time_column())?.clone();
        let outline = Arc::new(Schema::new(vec![time, day.as_ref().clone()]));
        let read = TableSchema::builder(Arc::new(Schema::new(own))).with_table_partition_cols(vec![day]).build();
        let root = Path::from_url_path(&plain.root)?;
        let mut stored: Vec<&Stored> = plain.files.iter().collect();
        stored.sort_by(|a, b| a.path.cmp(&b.path));
        let known = stored.iter().map(|file| Arc::new(told(file))).collect();
        let files = stored.iter().map(|file| partitioned(&root, file)).collect::<Result<_, _>>()?;
        Ok(Files { schema, read, store: ObjectStoreUrl::parse(&plain.store)?, files, known, outline })
    }

    /// The files that may have rows for all filters, with how many rows they have.
    fn wanted(&self, state: &dyn Session, filters: &[Expr]) -> Result<(Vec<PartitionedFile>, usize), DataFusionError> {
        let all = vec![true; self.files.len()];
        let keep = match conjunction(filters.to_vec()) {
            None => all,
            Some(filter) => {
                let columns = DFSchema::try_from(Arc::clone(&self.schema))?;
                let filter = state.create_physical_expr(filter, &columns)?;
                let known = PrunableStatistics::new(self.known.clone(), Arc::clone(&self.outline));
                // What cannot be told from statistics is read.
                let pruned = PruningPredicateBuilder::new()
                    .with_file_schema(Arc::clone(&self.schema))
                    .try_build(filter)
                    .and_then(|predicate| predicate.prune(&known));
                pruned.unwrap_or(all)
            }
        };
        let kept = self.files.iter().zip(&self.known).zip(keep).filter(|(_, keep)| *keep);
        let (mut files, mut rows) = (Vec::new(), 0_usize);
        for ((file, known), _) in kept {
            rows = rows.saturating_add(known.num_rows.get_value().copied().unwrap_or(0));
            files.push(file.clone());
        }
        Ok((files, rows))
    }

    /// Where the columns of a projection are in what is read.
    fn places(&self, projection: Option<&Vec<usize>>) -> Result<Vec<usize>, DataFusionError> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let read = self.read.table_schema();
        let place = |at: &usize| read.index_of(self.schema.field(*at).name());
        Ok(projection.unwrap_or(&all).iter().map(place).collect::<Result<_, _>>()?)
    }
}

#[async_trait]
impl TableProvider for Files {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Each filter goes on to the reader of Parquet when the plan is optimized, and stays above it only if the reader cannot.
    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let (files, rows) = self.wanted(state, filters)?;
        if files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(project_schema(&self.schema, projection)?)));
        }
        let options = state.config_options().execution.parquet.clone();
        let hint = options.metadata_size_hint;
        let options = TableParquetOptions { global: options, ..TableParquetOptions::default() };
        let runtime = state.runtime_env();
        let footers = runtime.cache_manager.get_file_metadata_cache();
        let reader = CachedParquetFileReaderFactory::new(runtime.object_store(&self.store)?, footers);
        let mut source = ParquetSource::new(self.read.clone())
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(reader));
        if let Some(hint) = hint {
            source = source.with_metadata_size_hint(hint);
        }
        let statistics =
            Statistics { num_rows: Precision::Exact(rows), ..Statistics::new_unknown(self.read.table_schema()) };
        let groups = FileGroup::new(files).split_files(state.config().target_partitions().max(1));
        let config = FileScanConfigBuilder::new(self.store.clone(), Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(Some(self.places(projection)?))?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// Texts as views: what reads Parquet makes them without copying.
fn viewed(schema: &Schema) -> SchemaRef {
    let kind = |kind: &DataType| match kind {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
        kind => kind.clone(),
    };
    let field = |field: &FieldRef| {
        let of = match field.data_type() {
            DataType::List(item) => {
                let item = item.as_ref().clone().with_data_type(kind(item.data_type()));
                DataType::List(Arc::new(item))
            }
            other => kind(other),
        };
        field.as_ref().clone().with_data_type(of)
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

fn partitioned(root: &Path, file: &Stored) -> Result<PartitionedFile, DataFusionError> {
    let location = Path::parse(format!("{root}/{}", file.path))?;
    // Data files never change: name and size tell one from all others, and what is kept of its footer holds.
    let (size, last_modified) = (file.bytes, Default::default());
    let meta = ObjectMeta { location, last_modified, size, e_tag: None, version: None };
    Ok(PartitionedFile::new_from_meta(meta).with_partition_values(vec![ScalarValue::Date32(day(file))]))
}

/// The day of a file's partition, counted from 1970.
fn day(file: &Stored) -> Option<i32> {
    let midnight: Time = format!("{}T00:00:00Z", file.day.as_deref()?).parse().ok()?;
    i32::try_from(midnight.micros().div_euclid(DAY_MICROS)).ok()
}

/// What the log says of a file: its time and its day. Times are rounded outwards there, which passes over no row.
fn told(file: &Stored) -> Statistics {
    let of = |least: Option<ScalarValue>, most: Option<ScalarValue>| {
        let known = |value: Option<ScalarValue>| value.map_or(Precision::Absent, Precision::Exact);
        ColumnStatistics { min_value: known(least), max_value: known(most), ..ColumnStatistics::new_unknown() }
    };
    let time = |time: Option<Time>| {
        time.map(|time| ScalarValue::TimestampMicrosecond(Some(time.micros()), Some(Arc::from("UTC"))))
    };
    let day = || day(file).map(|day| ScalarValue::Date32(Some(day)));
    Statistics {
        num_rows: Precision::Exact(usize::try_from(file.rows).unwrap_or(usize::MAX)),
        total_byte_size: Precision::Absent,
        column_statistics: vec![of(time(file.oldest), time(file.newest)), of(day(), day())],
    }
}
