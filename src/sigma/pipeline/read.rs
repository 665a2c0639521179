//! The text of a pipeline to its steps.

use std::{collections::BTreeMap, sync::Arc};

use regex::{Regex, RegexBuilder};

use super::{
    Conditions, Form, Joined, Names, Pipeline, Step, Transformation,
    condition::{FieldCondition, ItemCondition, Relation, RuleCondition},
    transform,
};
use crate::{
    parse::{Text, condition, refuse_repeated_keys},
    problem::{Place, Problem, Problems, Refused, Severity, did_you_mean, shown},
    rule::{Formula, LogSourcePattern, Value},
    yaml::{self, Kind, Node},
};

/// Steps of one pipeline, those within others counted.
const STEPS_MAX: usize = 10_000;
/// New names of one field.
const NAMES_MAX: usize = 64;
/// Bytes of one compiled regular expression.
const REGEX_BYTES_MAX: usize = 1 << 20;

const TRANSFORMATIONS: [&str; 27] = [
    "field_name_mapping",
    "field_name_prefix_mapping",
    "field_name_transform",
    "field_name_prefix",
    "field_name_suffix",
    "drop_detection_item",
    "hashes_fields",
    "wildcard_placeholders",
    "value_placeholders",
    "query_expression_placeholders",
    "add_condition",
    "change_logsource",
    "add_field",
    "remove_field",
    "set_field",
    "replace_string",
    "map_string",
    "set_state",
    "regex",
    "set_value",
    "convert_type",
    "case",
    "rule_failure",
    "detection_item_failure",
    "strict_field_mapping_failure",
    "set_custom_attribute",
    "nest",
];
const RULE_CONDITIONS: [&str; 9] = [
    "logsource",
    "contains_detection_item",
    "contains_field",
    "processing_item_applied",
    "processing_state",
    "is_sigma_rule",
    "is_sigma_correlation_rule",
    "rule_attribute",
    "tag",
];
const ITEM_CONDITIONS: [&str; 6] =
    ["match_string", "match_value", "contains_wildcard", "is_null", "processing_item_applied", "processing_state"];
const FIELD_CONDITIONS: [&str; 4] = ["include_fields", "exclude_fields", "processing_item_applied", "processing_state"];
/// Keys of a step that any transformation has.
const STEP_KEYS: [&str; 14] = [
    "id",
    "type",
    "rule_conditions",
    "rule_cond_op",
    "rule_cond_not",
    "rule_cond_expr",
    "detection_item_conditions",
    "detection_item_cond_op",
    "detection_item_cond_not",
    "detection_item_cond_expr",
    "field_name_conditions",
    "field_name_cond_op",
    "field_name_cond_not",
    "field_name_cond_expr",
];

type Read<T> = Result<T, Refused>;

pub(super) fn pipeline(text: &Text) -> Result<(Pipeline, Vec<Problem>), Vec<Problem>> {
    let mut reader = Reader { problems: Problems::new(&text.file), steps: 0, placeholders: Vec::new() };
    let read = reader.read(text);
    let found = reader.problems.list;
    match read {
        Ok(pipeline) if found.iter().all(|problem| problem.severity != Severity::Error) => Ok((pipeline, found)),
        Ok(_) | Err(Refused) => Err(found),
    }
}

struct Reader {
    problems: Problems,
    steps: usize,
    /// What fills in placeholders: values, or wildcards for those that it names (none: all).
    placeholders: Vec<Placeholders>,
}

enum Placeholders {
    Values { include: Option<Vec<String>>, exclude: Vec<String> },
    Wildcards(Option<Vec<String>>),
}

impl Reader {
    fn read(&mut self, text: &Text) -> Read<Pipeline> {
        let (documents, error) = yaml::documents(&text.text);
        if let Some(error) = error {
            return Err(self.bad(error.at, format!("could not read the text as YAML: {}", error.message)));
        }
        let [document] = documents.as_slice() else {
            let at = Place { line: 1, column: 1 };
            return Err(self.bad(at, format!("a pipeline is one document, here are {}", documents.len())));
        };
        let keys = ["name", "priority", "allowed_backends", "vars", "transformations", "postprocessing", "finalizers"];
        for (key, value) in self.map(document, "a pipeline")? {
            match key.text().unwrap_or_default() {
                "postprocessing" | "finalizers" if value.each().is_empty() => {}
                word @ ("postprocessing" | "finalizers" | "allowed_backends") => {
                    let message = format!("`{word}` concerns the text of queries and has no effect here");
                    self.problems.warn("pipeline_ignored", key.at, message, None);
                }
                word => self.known(word, key.at, "key of a pipeline", &keys)?,
            }
        }
        let name = document.get("name").and_then(Node::text).map_or_else(|| Arc::clone(&text.file), Arc::from);
        let priority = match document.get("priority") {
            None => 0,
            Some(node) => node
                .text()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| self.bad(node.at, "`priority` is no whole number".to_owned()))?,
        };
        let steps = match document.get("transformations") {
            None => Vec::new(),
            Some(node) => self.steps(node)?,
        };
        let vars = self.vars(document.get("vars"))?;
        let digest = *blake3::hash(text.text.as_bytes()).as_bytes();
        Ok(Pipeline { name, priority, vars, steps, digest })
    }

    /// What the pipeline fills into placeholders.
    fn vars(&mut self, node: Option<&Node>) -> Read<BTreeMap<String, Vec<String>>> {
        let mut vars = BTreeMap::new();
        if let Some(node) = node.filter(|node| !matches!(node.kind, Kind::Null)) {
            for (key, value) in self.map(node, "`vars`")? {
                let values: Option<Vec<String>> =
                    value.each().iter().map(|node| node.text().map(str::to_owned)).collect();
                let Some(values) = values else {
                    return Err(self.bad(value.at, "a variable is a text, a number or a list of them".to_owned()));
                };
                vars.insert(key.text().unwrap_or_default().to_owned(), values);
            }
        }
        let mut filled: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for step in &self.placeholders {
            match step {
                Placeholders::Values { include, exclude } => {
                    let handled = |name: &&String| {
                        include.as_ref().is_none_or(|list| list.contains(*name)) && !exclude.contains(*name)
                    };
                    for name in vars.keys().filter(handled) {
                        filled.entry(name.clone()).or_insert_with(|| vars.get(name).cloned().unwrap_or_default());
                    }
                }
                Placeholders::Wildcards(names) => {
                    let names = names.clone().unwrap_or_else(|| vec!["*".to_owned()]);
                    names.into_iter().for_each(|name| {
                        filled.entry(name).or_insert_with(|| vec!["*".to_owned()]);
                    });
                }
            }
        }
        Ok(filled)
    }

    fn steps(&mut self, node: &Node) -> Read<Vec<Step>> {
        let Kind::List(list) = &node.kind else {
            return Err(self.bad(node.at, format!("`transformations` is {}, not a list", node.word())));
        };
        let mut steps = Vec::with_capacity(list.len());
        for node in list {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return Err(self.bad(node.at, format!("the pipeline has more than {STEPS_MAX} transformations")));
            }
            // All that is wrong is said, not only the first.
            steps.extend(self.step(node).ok());
        }
        Ok(steps)
    }

    fn step(&mut self, node: &Node) -> Read<Step> {
        self.map(node, "a transformation")?;
        let word = self.required(node, "type", "a transformation")?;
        let rule = self.conditions(node, "rule", Reader::rule_condition)?;
        let item = self.conditions(node, "detection_item", Reader::item_condition)?;
        let field = self.conditions(node, "field_name", Reader::field_condition)?;
        let transformation = self.transformation(&word, node)?;
        let conditional = !(rule.list.is_empty() && item.list.is_empty() && field.list.is_empty());
        if conditional && matches!(&*word, "value_placeholders" | "wildcard_placeholders") {
            let message =
                "conditions of this transformation have no effect: placeholders are filled in when a rule is read";
            self.problems.warn("pipeline_ignored", node.at, message.to_owned(), None);
        }
        Ok(Step { id: node.get("id").and_then(Node::text).map(Arc::from), transformation, rule, item, field })
    }

    fn transformation(&mut self, word: &str, node: &Node) -> Read<Transformation> {
        let read = match word {
            "field_name_mapping" => {
                self.only(node, &["mapping"])?;
                Transformation::MapFields(self.mapping(node)?)
            }
            "field_name_prefix_mapping" => {
                self.only(node, &["mapping"])?;
                let list = self.mapping(node)?.into_iter();
                Transformation::MapPrefixes(list.filter_map(|(prefix, names)| Some((prefix?, names))).collect())
            }
            "field_name_transform" => {
                self.only(node, &["mapping", "transform_func", "apply_keyword"])?;
                let mapping = if node.get("mapping").is_some() { self.mapping(node)? } else { BTreeMap::new() };
                Transformation::FieldForm { form: self.form(node, "transform_func")?, mapping }
            }
            "field_name_prefix" => {
                self.only(node, &["prefix"])?;
                Transformation::Prefix(self.required(node, "prefix", word)?)
            }
            "field_name_suffix" => {
                self.only(node, &["suffix"])?;
                Transformation::Suffix(self.required(node, "suffix", word)?)
            }
            "drop_detection_item" => {
                self.only(node, &[])?;
                Transformation::DropItem
            }
            "hashes_fields" => {
                self.only(node, &["valid_hash_algos", "field_prefix", "drop_algo_prefix"])?;
                let algorithms = self.texts(node, "valid_hash_algos", word)?;
                Transformation::HashFields {
                    algorithms: algorithms.iter().map(|word| word.to_uppercase()).collect(),
                    prefix: node.get("field_prefix").and_then(Node::text).unwrap_or_default().to_owned(),
                    drop_algorithm: self.truth(node, "drop_algo_prefix")?,
                }
            }
            "wildcard_placeholders" | "value_placeholders" => self.placeholders(word, node)?,
            "query_expression_placeholders" => {
                let message = "`query_expression_placeholders` makes parts of a query, which rules here do not become";
                let hint = Some("give the values as `vars` and use `value_placeholders`".to_owned());
                return Err(self.problems.error("pipeline_unsupported", node.at, message.to_owned(), hint));
            }
            "add_condition" => self.added_condition(node)?,
            "change_logsource" => {
                self.only(node, &["product", "category", "service"])?;
                Transformation::ChangeLogSource(log_source(node))
            }
            "add_field" | "remove_field" => {
                self.only(node, &["field"])?;
                let names = self.texts(node, "field", word)?;
                if word == "add_field" { Transformation::AddFields(names) } else { Transformation::RemoveFields(names) }
            }
            "set_field" => {
                self.only(node, &["fields"])?;
                Transformation::SetFields(self.texts(node, "fields", word)?)
            }
            _ => return self.value_transformation(word, node),
        };
        Ok(read)
    }

    fn value_transformation(&mut self, word: &str, node: &Node) -> Read<Transformation> {
        let read = match word {
            "replace_string" => {
                self.only(node, &["regex", "replacement", "skip_special", "interpret_special"])?;
                let regex = self.required(node, "regex", word)?;
                // What each match puts in is bounded, so that a value cannot grow without bound.
                const REPLACEMENT_BYTES_MAX: usize = 256;
                let Some(replacement) = node.get("replacement").map(|node| node.text().unwrap_or_default()) else {
                    return Err(self.bad(node.at, "`replace_string` has no `replacement`".to_owned()));
                };
                if replacement.len() > REPLACEMENT_BYTES_MAX {
                    return Err(
                        self.bad(node.at, format!("`replacement` is longer than {REPLACEMENT_BYTES_MAX} bytes"))
                    );
                }
                Transformation::ReplaceString {
                    regex: self.regex(&regex, node.at)?,
                    replacement: replacement_of(replacement),
                    skip_special: self.truth(node, "skip_special")?,
                    interpret_special: self.truth(node, "interpret_special")?,
                }
            }
            "map_string" => {
                self.only(node, &["mapping"])?;
                let mapping = self.mapping(node)?.into_iter();
                let text = |name: Arc<str>| name.to_string();
                Transformation::MapString(
                    mapping
                        .filter_map(|(key, list)| Some((key?.to_string(), list.into_iter().map(text).collect())))
                        .collect(),
                )
            }
            "regex" => {
                self.only(node, &["method"])?;
                match node.get("method").and_then(Node::text) {
                    // Texts are compared without case already.
                    None | Some("ignore_case_flag" | "ignore_case_brackets") => Transformation::Nothing,
                    Some("plain") => Transformation::Cased,
                    Some(other) => {
                        let methods = ["plain", "ignore_case_flag", "ignore_case_brackets"];
                        return Err(self.unknown(other, node.at, "method of `regex`", &methods));
                    }
                }
            }
            "set_value" => {
                self.only(node, &["value", "force_type"])?;
                let Some(value) = node.get("value") else {
                    return Err(self.bad(node.at, "`set_value` has no `value`".to_owned()));
                };
                match &value.kind {
                    Kind::Null => Transformation::SetValue(None),
                    Kind::Scalar(text) => Transformation::SetValue(Some(Arc::from(&**text))),
                    Kind::List(_) | Kind::Map(_) => {
                        return Err(self.bad(value.at, format!("`value` is {}, not a scalar", value.word())));
                    }
                }
            }
            // Numbers and texts compare alike here.
            "convert_type" => {
                self.only(node, &["target_type"])?;
                Transformation::Nothing
            }
            "case" => {
                self.only(node, &["method"])?;
                Transformation::TextForm(self.form(node, "method")?)
            }
            "set_state" => {
                self.only(node, &["key", "val"])?;
                Transformation::SetState(self.required(node, "key", word)?, value_of(node.get("val")))
            }
            "set_custom_attribute" => {
                self.only(node, &["attribute", "value"])?;
                Transformation::SetAttribute(self.required(node, "attribute", word)?, value_of(node.get("value")))
            }
            "rule_failure" => {
                self.only(node, &["message"])?;
                Transformation::FailRule(self.required(node, "message", word)?)
            }
            "detection_item_failure" => {
                self.only(node, &["message"])?;
                Transformation::FailItem(self.required(node, "message", word)?)
            }
            "strict_field_mapping_failure" => Transformation::FailUnmapped,
            "nest" => {
                self.only(node, &["items"])?;
                let Some(items) = node.get("items") else {
                    return Err(self.bad(node.at, "`nest` has no `items`".to_owned()));
                };
                Transformation::Nest(self.steps(items)?)
            }
            other => return Err(self.unknown(other, node.at, "transformation", &TRANSFORMATIONS)),
        };
        Ok(read)
    }

    fn placeholders(&mut self, word: &str, node: &Node) -> Read<Transformation> {
        self.only(node, &["include", "exclude"])?;
        let list = |key: &str| -> Option<Vec<String>> {
            Some(node.get(key)?.each().iter().filter_map(Node::text).map(str::to_owned).collect())
        };
        let (include, exclude) = (list("include"), list("exclude"));
        if include.is_some() && exclude.is_some() {
            return Err(self.bad(node.at, "`include` and `exclude` cannot stand together".to_owned()));
        }
        if word == "value_placeholders" {
            self.placeholders.push(Placeholders::Values { include, exclude: exclude.unwrap_or_default() });
        } else if exclude.is_some() {
            let message = "`wildcard_placeholders` with `exclude` is not read".to_owned();
            let hint = Some("name the placeholders with `include`".to_owned());
            return Err(self.problems.error("pipeline_unsupported", node.at, message, hint));
        } else {
            self.placeholders.push(Placeholders::Wildcards(include));
        }
        Ok(Transformation::Nothing)
    }

    fn added_condition(&mut self, node: &Node) -> Read<Transformation> {
        self.only(node, &["conditions", "name", "template", "negated"])?;
        let Some(conditions) = node.get("conditions") else {
            return Err(self.bad(node.at, "`add_condition` has no `conditions`".to_owned()));
        };
        let template = self.truth(node, "template")?;
        // Read once to say what is wrong with it; a template is read again for each rule.
        if let Err(failure) = transform::conditions_of(conditions, template, &LogSourcePattern::default()) {
            return Err(self.bad(conditions.at, failure.0));
        }
        let name = node.get("name").and_then(Node::text).map_or_else(|| format!("_cond_{}", self.steps), str::to_owned);
        let negated = self.truth(node, "negated")?;
        Ok(Transformation::AddCondition { name: Arc::from(name), conditions: conditions.clone(), template, negated })
    }

    fn conditions<C>(
        &mut self,
        node: &Node,
        kind: &str,
        read: fn(&mut Reader, &str, &Node) -> Read<C>,
    ) -> Read<Conditions<C>> {
        let mut list: Vec<(Arc<str>, C)> = Vec::new();
        let mut one = |reader: &mut Reader, name: &str, node: &Node| {
            reader.map(node, "a condition")?;
            let word = reader.required(node, "type", "a condition")?;
            list.push((Arc::from(name), read(reader, &word, node)?));
            Ok(())
        };
        match node.get(&format!("{kind}_conditions")).map(|node| (&node.kind, node)) {
            None | Some((Kind::Null, _)) => {}
            Some((Kind::List(conditions), _)) => conditions.iter().try_for_each(|node| one(self, "", node))?,
            Some((Kind::Map(conditions), _)) => {
                conditions.iter().try_for_each(|(name, node)| one(self, name.text().unwrap_or_default(), node))?
            }
            Some((Kind::Scalar(_), node)) => {
                return Err(self.bad(node.at, format!("`{kind}_conditions` is no list and no map")));
            }
        }
        let joined = match (node.get(&format!("{kind}_cond_op")), node.get(&format!("{kind}_cond_expr"))) {
            (Some(op), Some(_)) => {
                let message = format!("`{kind}_cond_op` and `{kind}_cond_expr` cannot stand together");
                return Err(self.bad(op.at, message));
            }
            (Some(op), None) => match op.text() {
                Some("and") => Joined::All,
                Some("or") => Joined::Any,
                other => return Err(self.unknown(other.unwrap_or_default(), op.at, "operator", &["and", "or"])),
            },
            (None, Some(expression)) => Joined::By(self.expression(expression, &list)?),
            (None, None) => Joined::All,
        };
        Ok(Conditions { list, joined, negated: self.truth(node, &format!("{kind}_cond_not"))? })
    }

    fn expression<C>(&mut self, node: &Node, list: &[(Arc<str>, C)]) -> Read<Formula> {
        let written = condition::read(node.text().unwrap_or_default())
            .map_err(|wrong| self.bad(node.at, format!("the expression cannot be read: {}", wrong.message)))?;
        let names: Vec<&str> = list.iter().map(|(name, _)| &**name).collect();
        self.check_names(&written.formula, node.at, &names)?;
        Ok(written.formula)
    }

    fn check_names(&mut self, formula: &Formula, at: Place, names: &[&str]) -> Read<()> {
        match formula {
            Formula::Any(list) | Formula::All(list) => {
                list.iter().try_for_each(|formula| self.check_names(formula, at, names))
            }
            Formula::Not(formula) => self.check_names(formula, at, names),
            Formula::Name(name) if names.contains(&&**name) => Ok(()),
            Formula::Name(name) => Err(self.unknown(name, at, "condition", names)),
            Formula::Of(..) => Err(self.bad(at, "`of` has no meaning in this expression".to_owned())),
        }
    }

    fn rule_condition(&mut self, word: &str, node: &Node) -> Read<RuleCondition> {
        Ok(match word {
            "logsource" => {
                self.only_condition(node, &["product", "category", "service"])?;
                RuleCondition::LogSource(log_source(node))
            }
            "contains_detection_item" => {
                self.only_condition(node, &["field", "value"])?;
                RuleCondition::ContainsItem(self.required(node, "field", word)?, value_of(node.get("value")))
            }
            "contains_field" => RuleCondition::ContainsField(self.required(node, "field", word)?),
            "is_sigma_rule" => RuleCondition::IsRule,
            "is_sigma_correlation_rule" => RuleCondition::IsCorrelation,
            "rule_attribute" => {
                self.only_condition(node, &["attribute", "value", "op"])?;
                let attribute = self.required(node, "attribute", word)?;
                RuleCondition::Attribute(attribute, self.relation(node)?, value_of(node.get("value")))
            }
            "tag" => RuleCondition::Tag(self.required(node, "tag", word)?),
            "processing_item_applied" => RuleCondition::Applied(self.required(node, "processing_item_id", word)?),
            "processing_state" => {
                let (key, relation, value) = self.state(node)?;
                RuleCondition::State(key, relation, value)
            }
            other => return Err(self.unknown(other, node.at, "rule condition", &RULE_CONDITIONS)),
        })
    }

    fn item_condition(&mut self, word: &str, node: &Node) -> Read<ItemCondition> {
        let all = match node.get("cond").map(|node| (node.text(), node.at)) {
            None | Some((Some("any"), _)) => false,
            Some((Some("all"), _)) => true,
            Some((other, at)) => return Err(self.unknown(other.unwrap_or_default(), at, "`cond`", &["any", "all"])),
        };
        Ok(match word {
            "match_string" => {
                self.only_condition(node, &["cond", "pattern", "negate"])?;
                let pattern = self.required(node, "pattern", word)?;
                let regex = self.regex(&pattern, node.at)?;
                ItemCondition::MatchString { regex, all, negated: self.truth(node, "negate")? }
            }
            "match_value" => ItemCondition::MatchValue { value: value_of(node.get("value")), all },
            "contains_wildcard" => ItemCondition::ContainsWildcard { all },
            "is_null" => ItemCondition::IsNull { all },
            "processing_item_applied" => ItemCondition::Applied(self.required(node, "processing_item_id", word)?),
            "processing_state" => {
                let (key, relation, value) = self.state(node)?;
                ItemCondition::State(key, relation, value)
            }
            other => return Err(self.unknown(other, node.at, "detection item condition", &ITEM_CONDITIONS)),
        })
    }

    fn field_condition(&mut self, word: &str, node: &Node) -> Read<FieldCondition> {
        Ok(match word {
            "include_fields" | "exclude_fields" => {
                self.only_condition(node, &["fields", "mode"])?;
                let fields = self.texts(node, "fields", word)?;
                let (names, regexes) = match node.get("mode").map(|node| (node.text(), node.at)) {
                    None | Some((Some("plain"), _)) => (fields, Vec::new()),
                    Some((Some("re"), at)) => {
                        let regexes: Read<Vec<Regex>> = fields.iter().map(|field| self.regex(field, at)).collect();
                        (Vec::new(), regexes?)
                    }
                    Some((other, at)) => {
                        return Err(self.unknown(other.unwrap_or_default(), at, "mode", &["plain", "re"]));
                    }
                };
                let include = word == "include_fields";
                if include { FieldCondition::Include(names, regexes) } else { FieldCondition::Exclude(names, regexes) }
            }
            "processing_item_applied" => FieldCondition::Applied(self.required(node, "processing_item_id", word)?),
            "processing_state" => {
                let (key, relation, value) = self.state(node)?;
                FieldCondition::State(key, relation, value)
            }
            other => return Err(self.unknown(other, node.at, "field name condition", &FIELD_CONDITIONS)),
        })
    }

    fn state(&mut self, node: &Node) -> Read<(Arc<str>, Relation, Value)> {
        self.only_condition(node, &["key", "val", "op"])?;
        let key = self.required(node, "key", "processing_state")?;
        Ok((key, self.relation(node)?, value_of(node.get("val"))))
    }

    fn relation(&mut self, node: &Node) -> Read<Relation> {
        let Some(op) = node.get("op") else { return Ok(Relation::Equal) };
        let word = op.text().unwrap_or_default();
        let known = ["eq", "ne", "gt", "gte", "lt", "lte", "in", "not_in"];
        Relation::of(word).ok_or_else(|| self.unknown(word, op.at, "`op`", &known))
    }

    fn form(&mut self, node: &Node, key: &str) -> Read<Form> {
        let word = self.required(node, key, "the transformation")?;
        match &*word {
            "lower" => Ok(Form::Lower),
            "upper" => Ok(Form::Upper),
            "snake_case" => Ok(Form::Snake),
            other => Err(self.unknown(other, node.at, "form", &["lower", "upper", "snake_case"])),
        }
    }

    /// `mapping`: a name (null for keywords) to one or several.
    fn mapping(&mut self, node: &Node) -> Read<BTreeMap<Option<Arc<str>>, Names>> {
        let Some(mapping) = node.get("mapping") else {
            return Err(self.bad(node.at, "the transformation has no `mapping`".to_owned()));
        };
        let mut read = BTreeMap::new();
        for (key, value) in self.map(mapping, "`mapping`")? {
            let names: Option<Names> = value.each().iter().map(|node| node.text().map(Arc::from)).collect();
            let Some(names) = names.filter(|names| !names.is_empty() && names.len() <= NAMES_MAX) else {
                let field = shown(key.text().unwrap_or("null"));
                let message = format!("\"{field}\" is mapped to no text and no list of at most {NAMES_MAX} texts");
                return Err(self.bad(value.at, message));
            };
            read.insert(key.text().map(Arc::from), names);
        }
        Ok(read)
    }

    fn required(&mut self, node: &Node, key: &str, of: &str) -> Read<Arc<str>> {
        match node.get(key).and_then(Node::text).filter(|text| !text.is_empty()) {
            Some(text) => Ok(Arc::from(text)),
            None => Err(self.bad(node.at, format!("{} has no `{key}`", quoted(of)))),
        }
    }

    fn texts(&mut self, node: &Node, key: &str, of: &str) -> Read<Names> {
        let texts: Option<Names> =
            node.get(key).map(Node::each).unwrap_or_default().iter().map(|node| node.text().map(Arc::from)).collect();
        texts
            .filter(|texts| !texts.is_empty())
            .ok_or_else(|| self.bad(node.at, format!("{} has no `{key}`, a text or a list of texts", quoted(of))))
    }

    fn truth(&mut self, node: &Node, key: &str) -> Read<bool> {
        match node.get(key).map(|node| (node.text().map(str::to_ascii_lowercase), node.at)) {
            None => Ok(false),
            Some((Some(text), at)) => match text.as_str() {
                "true" | "yes" => Ok(true),
                "false" | "no" => Ok(false),
                _ => Err(self.bad(at, format!("`{key}` is neither true nor false"))),
            },
            Some((None, at)) => Err(self.bad(at, format!("`{key}` is neither true nor false"))),
        }
    }

    fn regex(&mut self, pattern: &str, at: Place) -> Read<Regex> {
        RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).build().map_err(|error| {
            let message = format!("the regular expression \"{}\" cannot be used: {}", shown(pattern), short(&error));
            let hint = Some("look-around and back references are not understood".to_owned());
            self.problems.error("pipeline", at, message, hint)
        })
    }

    fn only(&mut self, node: &Node, keys: &[&str]) -> Read<()> {
        let known: Vec<&str> = STEP_KEYS.iter().chain(keys).copied().collect();
        self.only_of(node, &known, "transformation")
    }

    fn only_condition(&mut self, node: &Node, keys: &[&str]) -> Read<()> {
        let known: Vec<&str> = ["type"].iter().chain(keys).copied().collect();
        self.only_of(node, &known, "condition")
    }

    fn only_of(&mut self, node: &Node, known: &[&str], of: &str) -> Read<()> {
        for (key, _) in node.map().unwrap_or_default() {
            self.known(key.text().unwrap_or_default(), key.at, &format!("key of the {of}"), known)?;
        }
        Ok(())
    }

    fn known(&mut self, word: &str, at: Place, what: &str, known: &[&str]) -> Read<()> {
        if known.contains(&word) { Ok(()) } else { Err(self.unknown(word, at, what, known)) }
    }

    fn unknown(&mut self, word: &str, at: Place, what: &str, known: &[&str]) -> Refused {
        let message = format!("unknown {what} \"{}\"", shown(word));
        self.problems.error("pipeline", at, message, did_you_mean(word, known.iter().copied()))
    }

    fn bad(&mut self, at: Place, message: String) -> Refused {
        self.problems.error("pipeline", at, message, None)
    }

    fn map<'n>(&mut self, node: &'n Node, what: &str) -> Read<&'n [(Node, Node)]> {
        let Some(entries) = node.map() else {
            return Err(self.bad(node.at, format!("{what} is {}, not a map", node.word())));
        };
        refuse_repeated_keys(entries, &mut self.problems)?;
        Ok(entries)
    }
}

/// `a transformation` as it is, the name of one in quotes.
fn quoted(of: &str) -> String {
    if of.contains(' ') { of.to_owned() } else { format!("`{of}`") }
}

fn log_source(node: &Node) -> LogSourcePattern {
    let part = |key: &str| node.get(key).and_then(Node::text).map(|text| Arc::from(text.to_lowercase()));
    LogSourcePattern { product: part("product"), category: part("category"), service: part("service") }
}

fn value_of(node: Option<&Node>) -> Value {
    match node.map(|node| &node.kind) {
        None | Some(Kind::Null) => Value::Null,
        Some(Kind::Scalar(text)) => match text.as_str() {
            "true" => Value::Truth(true),
            "false" => Value::Truth(false),
            text => text.parse().map_or_else(|_| Value::Text(Arc::from(text)), Value::Whole),
        },
        Some(Kind::List(list)) => Value::List(list.iter().map(|node| value_of(Some(node))).collect()),
        Some(Kind::Map(entries)) => Value::Map(
            entries
                .iter()
                .map(|(key, value)| (Arc::from(key.text().unwrap_or_default()), value_of(Some(value))))
                .collect(),
        ),
    }
}

/// Python's form of a replacement as this one's: `\1` and `\g<name>` are groups, `$` is itself.
fn replacement_of(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek().copied()) {
            ('$', _) => out.push_str("$$"),
            ('\\', Some(digit)) if digit.is_ascii_digit() => {
                out.push_str("${");
                while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                    out.push(digit);
                }
                out.push('}');
            }
            ('\\', Some('g')) if chars.clone().nth(1) == Some('<') => {
                out.push_str("${");
                out.extend(chars.by_ref().skip(2).take_while(|c| *c != '>'));
                out.push('}');
            }
            ('\\', Some('\\')) => {
                chars.next();
                out.push('\\');
            }
            (c, _) => out.push(c),
        }
    }
    out
}

fn short(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
        error => error.to_string().lines().last().unwrap_or_default().trim().to_owned(),
    }
}
