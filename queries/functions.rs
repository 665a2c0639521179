//! Functions of our own: reaching into JSON texts, networks, entities, tactics, buckets of time, the identity of an event.

use std::sync::Arc;

use cf_types::{Entity, EventId, Tenant, event::canonical};
use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringViewArray},
        datatypes::DataType,
    },
    error::Result,
    logical_expr::{ColumnarValue, ScalarUDF, Signature, SimpleScalarUDF, Volatility},
    prelude::SessionContext,
    scalar::ScalarValue,
};

use crate::json_path::find;

mod attack;
mod bucket;
mod network;

/// A function as people see it: how it is called, and what it gives.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// Its arguments.
    pub arguments: &'static str,
    /// What it gives.
    pub meaning: &'static str,
}

/// Our own functions, besides those of every SQL.
pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "attack_tactic",
        arguments: "tag",
        meaning: "the ATT&CK tactic of a technique (T1059.001) or a tag (attack.t1059); null if there is none",
    },
    Function {
        name: "cidr_match",
        arguments: "address, networks",
        meaning: "whether the address lies in one of the networks ('10.0.0.0/8,fe80::/10')",
    },
    Function {
        name: "entity",
        arguments: "kind, value",
        meaning: "the entity as the column entities has it: entity('host', 'WEB01.') is host:web01",
    },
    Function {
        name: "event_identity",
        arguments: "tenant, source, event_id, id, raw",
        meaning: "the identity of an event, also where the table has none",
    },
    Function { name: "json_get", arguments: "json, path", meaning: "the value at a path as text" },
    Function { name: "json_get_bool", arguments: "json, path", meaning: "the same as a truth value" },
    Function { name: "json_get_int", arguments: "json, path", meaning: "the same as a whole number" },
    Function { name: "json_number", arguments: "json, path", meaning: "the same as a number; quoted numbers count" },
    Function {
        name: "time_bucket",
        arguments: "width, time",
        meaning: "the begin of the bucket ('5m', '1 hour', '1 week') in which the time lies",
    },
];

/// Makes the functions known to a session.
pub(crate) fn register(context: &SessionContext) {
    let text = DataType::Utf8View;
    context.register_udf(network::cidr_match());
    context.register_udf(bucket::time_bucket());
    context.register_udf(function("attack_tactic", 1, text.clone(), |row| match row {
        [tag] => attack::tactic((*tag)?).map(str::to_owned),
        _ => None,
    }));
    context.register_udf(function("entity", 2, text.clone(), |row| match row {
        [kind, value] => format!("{}:{}", (*kind)?, (*value)?).parse::<Entity>().ok().map(|entity| entity.to_string()),
        _ => None,
    }));
    context.register_udf(function("json_get", 2, text.clone(), |row| pair(row).and_then(|(t, p)| json_get(t, p))));
    context.register_udf(numbers("json_number", |row| pair(row).and_then(|(t, p)| json_number(t, p))));
    context.register_udf(by_row("json_get_int", 2, DataType::Int64, |texts, rows| {
        let value = |row: &[Option<&str>]| pair(row).and_then(|(t, p)| json_get(t, p))?.trim().parse().ok();
        Arc::new(each(texts, rows, &value).collect::<Int64Array>())
    }));
    context.register_udf(by_row("json_get_bool", 2, DataType::Boolean, |texts, rows| {
        let value = |row: &[Option<&str>]| pair(row).and_then(|(t, p)| json_get(t, p))?.trim().parse().ok();
        Arc::new(each(texts, rows, &value).collect::<BooleanArray>())
    }));
    context.register_udf(function("event_identity", 5, text, |row| match row {
        [_, _, _, Some(id), _] => Some((*id).to_owned()),
        [tenant, source, event_id, None, raw] => {
            let content = canonical((*raw)?.as_bytes());
            Some(EventId::declared(&Tenant::new((*tenant)?), (*source)?, (*event_id)?, &content).to_string())
        }
        _ => None,
    }));
}

fn pair<'a>(row: &[Option<&'a str>]) -> Option<(&'a str, &'a str)> {
    match row {
        [first, second] => Some(((*first)?, (*second)?)),
        _ => None,
    }
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
    by_column(name, arguments, returns, move |texts, rows| Ok(column(texts, rows)))
}

fn by_column(
    name: &str,
    arguments: usize,
    returns: DataType,
    column: impl Fn(&[&StringViewArray], usize) -> Result<ArrayRef> + Send + Sync + 'static,
) -> ScalarUDF {
    let signature = Signature::exact(vec![DataType::Utf8View; arguments], Volatility::Immutable);
    let work = move |arguments: &[ColumnarValue]| -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let texts: Vec<&StringViewArray> = arrays.iter().map(|array| array.as_string_view()).collect();
        let rows = arrays.first().map_or(0, |array| array.len());
        let result = column(&texts, rows)?;
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
