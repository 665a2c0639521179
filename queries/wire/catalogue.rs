//! The catalogue that clients look into: PostgreSQL's tables and functions over ours.
//!
//! It is made once for all connections, so that an `oid` that one statement gave is known to the next.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array as _, AsArray as _, BooleanArray, StringViewArray},
        datatypes::DataType,
    },
    error::Result,
    logical_expr::{ColumnarValue, ScalarUDF, Signature, SimpleScalarUDF, TypeSignature, Volatility},
    prelude::SessionContext,
    scalar::ScalarValue,
};
use datafusion_postgres::datafusion_pg_catalog::{pg_catalog::context::EmptyContextProvider, setup_pg_catalog};

use super::{command::setting, login::SERVER_VERSION};
use crate::{Session, error::QueryError, session::CATALOG};

/// Functions of the catalogue that say nothing here: there are no comments, indexes, rules or triggers.
const SAY_NOTHING: &[&str] = &[
    "col_description",
    "obj_description",
    "pg_get_functiondef",
    "pg_get_indexdef",
    "pg_get_ruledef",
    "pg_get_serial_sequence",
    "pg_get_triggerdef",
    "pg_get_viewdef",
    "pg_tablespace_location",
    "shobj_description",
];

/// The same session with PostgreSQL's catalogue beside our tables.
pub(super) fn with_catalogue(session: &Session) -> std::result::Result<Session, QueryError> {
    let context = session.empty_context()?;
    setup_pg_catalog(&context, CATALOG, EmptyContextProvider).map_err(|error| QueryError::new(&error, 0))?;
    register(&context);
    Ok(session.clone().with_template(context.state()))
}

fn register(context: &SessionContext) {
    for name in SAY_NOTHING {
        context.register_udf(any(name, DataType::Utf8View, ScalarValue::Utf8View(None)));
    }
    let version = format!("PostgreSQL {SERVER_VERSION} (Counterflow {})", env!("CARGO_PKG_VERSION"));
    context.register_udf(any("version", DataType::Utf8View, ScalarValue::Utf8View(Some(version))));
    context.register_udf(any("pg_is_in_recovery", DataType::Boolean, ScalarValue::Boolean(Some(true))));
    context.register_udf(any("txid_current", DataType::Int64, ScalarValue::Int64(Some(1))));
    context.register_udf(any("pg_my_temp_schema", DataType::Int32, ScalarValue::Int32(Some(0))));
    context.register_udf(any("inet_server_addr", DataType::Utf8View, ScalarValue::Utf8View(None)));
    context.register_udf(any("inet_server_port", DataType::Int32, ScalarValue::Int32(None)));
    let one = TypeSignature::Exact(vec![DataType::Utf8View]);
    let two = TypeSignature::Exact(vec![DataType::Utf8View, DataType::Boolean]);
    let signature = Signature::one_of(vec![one, two], Volatility::Stable);
    let current = SimpleScalarUDF::new_with_signature(
        "current_setting",
        signature,
        DataType::Utf8View,
        Arc::new(current_setting),
    );
    context.register_udf(ScalarUDF::from(current));
}

/// A function that gives the same for whatever it is called with.
fn any(name: &str, kind: DataType, value: ScalarValue) -> ScalarUDF {
    let signature = Signature::one_of(vec![TypeSignature::Nullary, TypeSignature::VariadicAny], Volatility::Stable);
    let call = move |_arguments: &[ColumnarValue]| Ok(ColumnarValue::Scalar(value.clone()));
    ScalarUDF::from(SimpleScalarUDF::new_with_signature(name, signature, kind, Arc::new(call)))
}

fn current_setting(arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
    let arrays = ColumnarValue::values_to_arrays(arguments)?;
    let empty = StringViewArray::from(Vec::<&str>::new());
    let names = arrays.first().map_or(&empty, |names| names.as_string_view());
    let missing_ok = arrays.get(1).map(|missing| missing.as_boolean());
    let value = |row: usize| {
        let name = (!names.is_null(row)).then(|| names.value(row))?;
        let absent = missing_ok.is_none_or(|flags: &BooleanArray| flags.is_null(row) || !flags.value(row));
        setting(name).or((absent).then_some(""))
    };
    let values: StringViewArray = (0..names.len()).map(value).collect();
    Ok(ColumnarValue::Array(Arc::new(values)))
}
