//! Bad input is an error that names the column and says what to do, or a treatment that is noted.

use cf_models::{members::Kind, table::Table};
use expect_test::{Expect, expect};

use crate::support::{file, flows, request, table, trained};

/// Trains on a text; the error or the notes.
#[track_caller]
fn check(text: &str, expect: Expect) {
    let said = match trained(text, &request(&[Kind::Boost])) {
        Ok((prepared, _)) => prepared.notes.join("\n"),
        Err(error) => format!("error: {error}"),
    };
    expect.assert_eq(&said);
}

/// The rows of `flows` with one more column.
fn with(name: &str, mut cell: impl FnMut(usize, &str) -> String) -> String {
    let text = flows(400, 1, 0.1);
    let line = |(row, line): (usize, &str)| match row {
        0 => format!("{name},{line}\n"),
        row => format!("{},{line}\n", cell(row, line)),
    };
    text.lines().enumerate().map(line).collect()
}

#[test]
fn a_label_that_is_not_there_is_named_with_what_is() {
    check(
        &flows(100, 1, 0.1).replace("label", "Label"),
        expect![[
            r#"error: there is no column "label" (the label); did you mean "Label"?; the columns are bytes, rate, service, flag, constant, Label"#
        ]],
    );
}

#[test]
fn one_class_is_not_enough() {
    check(
        &flows(100, 1, 0.1).replace("probe", "normal").replace("dos", "normal"),
        expect![[
            r#"error: all 100 rows are negative: column "label" has normal; name the positive value with --positive, or add rows of the other class"#
        ]],
    );
}

#[test]
fn a_missing_label_names_its_row() {
    check(
        "a,label\n1,normal\n2,\n",
        expect![[
            r#"error: column "label" is empty in row 2, the label must be there in every row: label these rows or leave them out"#
        ]],
    );
}

#[test]
fn zero_rows_are_an_error() {
    let error = table("a,label\n").unwrap_err().to_string();
    assert!(error.ends_with("rows.csv has no rows"), "{error}");
}

#[test]
fn ten_rows_are_too_few() {
    check(&flows(10, 3, 0.0), expect!["error: rows: there are 10, 50 are needed"]);
}

#[test]
fn a_constant_column_is_left_out_and_named() {
    check(&flows(400, 1, 0.1), expect!["left out, being the same in all rows: constant"]);
}

#[test]
fn missing_and_infinite_numbers_are_noted() {
    check(
        &with("speed", |row, _| match row % 40 {
            0 => String::new(),
            1 => "inf".to_owned(),
            2 => "NaN".to_owned(),
            n => n.to_string(),
        }),
        expect![[r#"
            column "speed": 10 infinite values count as missing
            column "speed": 30 of 400 values are missing; trees send them their own way, the others take the mean
            left out, being the same in all rows: constant"#]],
    );
}

#[test]
fn a_column_as_good_as_the_label_is_refused() {
    let leaking = with("verdict", |_, line| if line.ends_with("normal") { "0.1" } else { "0.9" }.to_owned());
    check(
        &leaking,
        expect![[
            r#"error: column "verdict" alone separates the classes (ROC-AUC 1.0000): it looks like a leak of the label; leave it out under leave_out in --features, or allow it with --allow-leak verdict"#
        ]],
    );
    let mut told = request(&[Kind::Boost]);
    told.allow_leak = vec!["verdict".to_owned()];
    assert!(trained(&leaking, &told).is_ok());
}

#[test]
fn a_text_as_good_as_the_label_is_refused_an_identifier_is_not() {
    let leaking = with("class", |_, line| if line.ends_with("normal") { "fine" } else { "bad" }.to_owned());
    assert!(trained(&leaking, &request(&[Kind::Boost])).unwrap_err().to_string().contains("\"class\" alone"));
    check(&with("id", |row, _| format!("x{row}")), expect!["left out, being the same in all rows: constant"]);
}

#[test]
fn difficulty_is_never_a_feature() {
    let (prepared, _) =
        trained(&with("Difficulty", |row, _| (row % 21).to_string()), &request(&[Kind::Boost])).unwrap();
    assert!(prepared.inputs.iter().all(|input| input.column != "Difficulty"));
}

#[test]
fn the_label_may_change_its_form_but_not_the_features() {
    let (_, model) = trained(&flows(400, 1, 0.1), &request(&[Kind::Boost])).unwrap();
    let encode = |text: &str| model.model.encode(&table(text).unwrap()).map(|m| m.rows).map_err(|e| e.to_string());
    assert_eq!(encode("bytes,rate,service,flag\n1,2,http,SF\n"), Ok(1));
    assert_eq!(
        encode("flag,service,rate,bytes,label\nSF,new,,1,what\n"),
        Ok(1),
        "any order, unseen, missing, label ignored"
    );
    assert!(encode("bytes,rate,service\n1,2,http\n").unwrap_err().contains("\"flag\""));
    let wrong = encode("bytes,rate,service,flag\nmany,2,http,SF\n").unwrap_err();
    expect![[r#"column "bytes" is text (for example "many"), a feature that the model knows as a number must be numbers: mend these cells or leave them empty"#]].assert_eq(&wrong);
}

#[test]
fn unseen_categories_are_counted() {
    let (_, model) = trained(&flows(400, 1, 0.1), &request(&[Kind::Boost])).unwrap();
    let rows = table("bytes,rate,service,flag\n1,2,gopher,SF\n1,2,http,SF\n1,2,gopher,SF\n").unwrap();
    expect![[r#"{"service": 2}"#]].assert_eq(&format!("{:?}", model.model.ensemble.encoder.unseen(&rows)));
}

#[test]
fn files_that_are_no_tables_are_refused() {
    let read = |bytes: &[u8], name: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = Table::read(&path).unwrap_err().to_string();
        error.replace(&path.display().to_string(), name)
    };
    expect!["rows.txt is neither .parquet nor .csv: rename or convert it"].assert_eq(&read(b"a,b\n1,2\n", "rows.txt"));
    assert!(read(b"PAR1 but not really PAR1", "x.parquet").contains("not readable as Parquet"));
    assert!(read(b"", "x.parquet").contains("not readable as Parquet"));
    assert!(read(b"a,b\n1\n", "x.csv").contains("not readable as CSV"));
    assert!(read(b"a,a\n1,2\n", "x.csv").contains("two columns are named \"a\""));
    assert!(read(b"a,\n1,2\n", "x.csv").contains("column 2 has no name"));
    assert!(read(b"a,b\n\xff\xfe,2\n", "x.csv").contains("UTF-8"));
    assert!(
        Table::read(std::path::Path::new("/nowhere/x.csv"))
            .unwrap_err()
            .to_string()
            .starts_with("could not open /nowhere/x.csv")
    );
}

#[test]
fn a_custom_task_asks_for_its_positive_value() {
    let mut asked = request(&[Kind::Boost]);
    asked.task = cf_models::task::Task::new("mail").unwrap();
    let error = trained(&flows(100, 1, 0.1), &asked).unwrap_err().to_string();
    expect![[r#"--positive is not valid: task "mail" has no default; give one of dos, normal, probe"#]]
        .assert_eq(&error);
    asked.positive = Some("dos".to_owned());
    assert!(trained(&flows(400, 1, 0.1), &asked).is_ok());
    assert!(cf_models::task::Task::new("../up").is_err());
}

#[test]
fn declared_features_are_made_and_bad_declarations_are_refused() {
    let (_folder, path) = file(
        "polynomial: {columns: [bytes], degree: 2}\nproduct: [[bytes, rate]]\nratio: [[bytes, rate]]\ncross: [[service, flag]]\n",
        "f.yml",
    );
    let mut asked = request(&[Kind::Boost]);
    asked.recipe.spec = cf_models::features::Spec::read(&path).unwrap();
    let (_, model) = trained(&flows(400, 1, 0.1), &asked).unwrap();
    let names = model.model.ensemble.encoder.names().join("; ");
    expect!["bytes; rate; service; flag; bytes^2; bytes * rate; bytes / rate; service with flag"].assert_eq(&names);
    asked.recipe.spec.product = vec![["bytes".to_owned(), "service".to_owned()]];
    let error = trained(&flows(400, 1, 0.1), &asked).unwrap_err().to_string();
    assert!(error.contains("column \"service\" is text"), "{error}");
    let (_folder, path) = file("polynom: 3\n", "f.yml");
    assert!(cf_models::features::Spec::read(&path).unwrap_err().to_string().contains("polynom"));
}
