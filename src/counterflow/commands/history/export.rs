//! `counterflow history export`: a table, or a span of time of it, as one file.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
};

use anyhow::{Context, Result, bail};
use cf_history::{ParquetFile, Table};
use cf_queries::Rows;

use super::existing;
use crate::{
    cli::{ExportArguments, ExportFormat},
    output::{self, Exit},
};

pub(super) fn run(arguments: &ExportArguments) -> Result<Exit> {
    let place = existing(&arguments.data)?;
    let Some(table) = Table::ALL.into_iter().find(|table| table.name() == arguments.table) else {
        let known: Vec<_> = Table::ALL.iter().map(|table| table.name()).collect();
        bail!("there is no table {:?}; there are {}", arguments.table, known.join(", "));
    };
    let time = table.time_column();
    let bound =
        |sign: &str, at: Option<cf_types::Time>| at.map(|at| format!("\"{time}\" {sign} cast('{at}' as timestamp)"));
    let bounds: Vec<String> = [bound(">=", arguments.from), bound("<", arguments.to)].into_iter().flatten().collect();
    let condition = if bounds.is_empty() { String::new() } else { format!(" where {}", bounds.join(" and ")) };
    let statement = format!("select * from \"{}\"{condition}", table.name());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("could not start")?;
    let count = runtime.block_on(async {
        let session = cf_queries::Session::open(&place, cf_queries::Options::default())?;
        let mut rows = session.query(&statement).await?;
        write(arguments, &mut rows).await
    })?;
    output::note(&format!("{count} rows of {} written", table.name()));
    Ok(Exit::Ok)
}

async fn write(arguments: &ExportArguments, rows: &mut Rows) -> Result<u64> {
    let to_output = arguments.out.as_os_str() == "-";
    if arguments.format == ExportFormat::Parquet {
        if to_output {
            bail!("a Parquet file cannot be written to standard output; give --out FILE");
        }
        let mut file = ParquetFile::create(&arguments.out, &rows.schema())?;
        while let Some(batch) = rows.next().await? {
            file.write(&batch)?;
        }
        return Ok(file.finish()?);
    }
    let shown = arguments.out.display();
    let mut out: Box<dyn Write + Send> = if to_output {
        Box::new(BufWriter::new(io::stdout()))
    } else {
        Box::new(BufWriter::new(File::create(&arguments.out).with_context(|| format!("could not create {shown}"))?))
    };
    let count = match arguments.format {
        ExportFormat::Csv => cf_queries::write_csv(rows, &mut out).await?,
        ExportFormat::Json | ExportFormat::Parquet => cf_queries::write_json_lines(rows, &mut out).await?,
    };
    output::ignore_closed_pipe(out.flush())?;
    Ok(count)
}
