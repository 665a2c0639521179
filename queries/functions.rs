//! Functions of our own: reaching into JSON texts, and the identity of an event.

use std::sync::Arc;

use cf_types::{EventId, Tenant, event::canonical};
use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Float64Array, StringViewArray},
        datatypes::DataType,
    },
    error::Result,
    logical_expr::{ColumnarValue, ScalarUDF, Signature, SimpleScalarUDF, Volatility},
    prelude::SessionContext,
    scalar::ScalarValue,
};

use crate::json_path::find;

/// Makes the functions known to a session.
pub(crate) fn register(context: &SessionContext) {
    let text = DataType::Utf8View;
    context.register_udf(function("json_get", 2, text.clone(), |row| json_get(row[0]?, row[1]?)));
    context.register_udf(numbers("json_number", |row| json_number(row[0]?, row[1]?)));
    context.register_udf(function("event_identity", 5, text, |row| {
        if let Some(id) = row[3] {
            return Some(id.to_owned());
        }
        let content = canonical(row[4]?.as_bytes());
        Some(EventId::declared(&Tenant::new(row[0]?), row[1]?, row[2]?, &content).to_string())
    }));
}

/// The value at a path as text: strings without quotes, numbers and truth values as they stand, objects and arrays as
/// JSON; null where nothing or a JSON null stands.
fn json_get(text: &str, path: &str) -> Option<String> {
    let found = find(text, path)?;
    let found = found.get();
    match found.as_bytes().first() {
        Some(b'"') => serde_json::from_str(found).ok(),
        Some(b'n') | None => None,
        Some(_) => Some(found.to_owned()),
    }
}

/// The same as a number; texts that are decimal numbers count, since many shippers quote them.
fn json_number(text: &str, path: &str) -> Option<f64> {
    json_get(text, path)?.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

fn function(
    name: &str,
    arguments: usize,
    returns: DataType,
    row: impl Fn(&[Option<&str>]) -> Option<String> + Send + Sync + 'static,
) -> ScalarUDF {
    by_row(name, arguments, returns, move |texts, rows| Arc::new(each(texts, rows, &row).collect::<StringViewArray>()))
}

fn numbers(name: &str, row: impl Fn(&[Option<&str>]) -> Option<f64> + Send + Sync + 'static) -> ScalarUDF {
    by_row(name, 2, DataType::Float64, move |texts, rows| Arc::new(each(texts, rows, &row).collect::<Float64Array>()))
}

fn by_row(
    name: &str,
    arguments: usize,
    returns: DataType,
    column: impl Fn(&[&StringViewArray], usize) -> ArrayRef + Send + Sync + 'static,
) -> ScalarUDF {
    let signature = Signature::exact(vec![DataType::Utf8View; arguments], Volatility::Immutable);
    let work = move |arguments: &[ColumnarValue]| -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let texts: Vec<&StringViewArray> = arrays.iter().map(|array| array.as_string_view()).collect();
        let rows = arrays.first().map_or(0, |array| array.len());
        let result = column(&texts, rows);
        let constant = arguments.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        if constant {
            ScalarValue::try_from_array(&result, 0).map(ColumnarValue::Scalar)
        } else {
            Ok(ColumnarValue::Array(result))
        }
    };
    ScalarUDF::from(SimpleScalarUDF::new_with_signature(name, signature, returns, Arc::new(work)))
}

fn each<'a, T>(
    texts: &'a [&StringViewArray],
    rows: usize,
    row: &'a impl Fn(&[Option<&str>]) -> Option<T>,
) -> impl Iterator<Item = Option<T>> + 'a {
    (0..rows).map(move |index| {
        let values: Vec<Option<&str>> =
            texts.iter().map(|text| (!text.is_null(index)).then(|| text.value(index))).collect();
        row(&values)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_as_text_and_as_numbers() {
        let text = r#"{"s":"a\"b","n":5,"q":" 5.5 ","b":true,"z":null,"o":{"k":[1]},"big":"inf"}"#;
        for (path, get, number) in [
            ("s", Some("a\"b"), None),
            ("n", Some("5"), Some(5.0)),
            ("q", Some(" 5.5 "), Some(5.5)),
            ("b", Some("true"), None),
            ("z", None, None),
            ("o", Some(r#"{"k":[1]}"#), None),
            ("o.k.0", Some("1"), Some(1.0)),
            ("big", Some("inf"), None),
            ("none", None, None),
        ] {
            assert_eq!(json_get(text, path).as_deref(), get, "{path}");
            assert_eq!(json_number(text, path), number, "{path}");
        }
    }
}
