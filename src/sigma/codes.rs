//! All codes of problems: what each means and what to do, for tools that show rules of a linter.

/// Every code of this crate with what it means and what to do, sorted.
#[must_use]
pub fn codes() -> &'static [(&'static str, &'static str)] {
    CODES
}

/// What a code means.
pub(crate) fn about(code: &str) -> Option<&'static str> {
    CODES.binary_search_by_key(&code, |(code, _)| code).ok().and_then(|place| CODES.get(place)).map(|(_, about)| *about)
}

const CODES: &[(&str, &str)] = &[
    ("absence", "`absence` is not of two rules, or has a condition. Name what happened and what was to follow."),
    ("aggregation", "An aggregation of Sigma 1 in a condition. Write it as a correlation."),
    ("alias", "An alias speaks of a rule that the correlation does not refer to. Name one of its `rules`."),
    ("aliases", "`aliases` is no map of maps. Write `aliases: {name: {rule: field}}`."),
    ("all_of_list", "`all of` a list asks for one of its elements, other than in Sigma 1. Use the modifier `all`."),
    ("all_of_one", "`all` has no effect on one value. Take it out."),
    ("all_of_them", "`all of them` leaves no room for filters. Write `all of selection*`."),
    ("always_false", "The condition can never be met. Mend it."),
    ("always_true", "The condition is always met. Mend it."),
    ("attribute", "An attribute has a value of the wrong kind and is left out. Write a text, or a list of texts."),
    ("attribute_name", "A custom field's name is near to an attribute. Look for a misspelling."),
    ("base64_not_wide", "The text is encoded as it is, where PowerShell takes UTF-16. Put `wide` before it."),
    ("base64_offset", "`base64` finds a text only where the encoding begins with it. Use `base64offset`."),
    ("bound", "A bound is no number, or none that fits. Counts want whole numbers from 0, percentiles 0 to 100."),
    (
        "chained_group",
        "A correlation groups by, or counts, a field that the correlation it refers to does not group by. Take one of its fields, by an alias if it has another name.",
    ),
    ("chained_value", "A correlation sums or ranks values of episodes, which have none. Refer to rules on events."),
    ("circle", "A correlation refers to itself. Take the reference out."),
    (
        "collection_action",
        "An `action` of Sigma 1 that is unknown or has nothing to repeat. Write global, reset or repeat.",
    ),
    ("condition", "The condition cannot be read. Mend it at the word that is named."),
    ("correlation", "`correlation` is no map."),
    ("count", "A rule counts twice, or within `any`, `all`, `not`. Count once, beside the other conditions."),
    ("covered_value", "A value never decides, because another of the list is within it. Take it out."),
    ("date", "A date is not of the form YYYY-MM-DD. Write it so."),
    ("date_order", "The date of the last change is before that of the rule. Mend one."),
    ("deprecated_alone", "The rule is deprecated and does not say what replaces it. Name it in `related`."),
    ("description_length", "The description is longer than 65,535 characters. Shorten it."),
    ("detection", "`detection` is no map, or a selection's name is no word."),
    ("disable", "`disable` lists something that is no id."),
    ("duplicate_name", "Two rules have one name. Correlations take the first."),
    ("duplicate_title", "Two rules have one title. People tell rules apart by it."),
    ("empty_selection", "A selection is empty. Fill it or take it out."),
    ("encoded_value", "An encoding gives bytes that are no text. Put `base64` or `base64offset` behind it."),
    ("encoded_wildcard", "A value with wildcards cannot be encoded. Escape them."),
    (
        "escaped_wildcard",
        "A backslash makes the asterisk behind it a plain one. Write two for a backslash and a wildcard.",
    ),
    ("field", "A field's name is missing, no text, or one too many."),
    ("field_name", "A field's name is near to one of the log source and not known itself. Look for a misspelling."),
    (
        "file_name",
        "The file's name is not of the form that rules are exchanged with. Use 10 to 70 small letters, digits and `_`, and `.yml`.",
    ),
    ("filter", "`filter` is no map."),
    (
        "filter_condition",
        "A filter's condition is read as what to suppress; other tools may read it as what must hold. Write `not selection`.",
    ),
    (
        "filter_logsource",
        "A filter names a rule of another log source and does not concern it. Give both the same `logsource`.",
    ),
    ("generate", "`generate` is neither true nor false."),
    (
        "hunt",
        "A hunt lacks its query, or a part of it is malformed. Write `hunt: {query: SELECT .., window: 1h, key: [host]}`.",
    ),
    ("hunt_query", "The query of a hunt cannot be asked, or does not give the columns that make rows detections."),
    ("id_form", "The id is no UUID. Make a random one."),
    ("inherited_id", "A rule of a collection has no id of its own. Give it one."),
    ("log_sources", "A file of log sources has something that is unknown or malformed; nothing of the file is taken."),
    ("logsource", "`logsource` is no map of words, or says nothing. Give product, category or service."),
    (
        "logsource_form",
        "A part of `logsource` is not written as log sources are. Use small letters, digits, `_`, `-` and `.`.",
    ),
    ("memory", "A `first_seen` or `rate` does not say how far it remembers, or too little. Set `within`."),
    ("modifiers", "Modifiers cannot stand together. Leave one out."),
    (
        "no_anchor",
        "No text must be present for the rule to be met, so every event of its log source is looked at. Ask for a value that must be there.",
    ),
    ("no_author", "The rule has no author. Say whom to ask."),
    (
        "no_channel",
        "A rule wants to notify channels that are not there. Notifications are set up in the configuration.",
    ),
    ("no_condition", "There is no condition. Write one."),
    ("no_date", "The rule has no date. Say when it was written."),
    ("no_description", "The rule has no description. Say what it finds and why that matters."),
    ("no_detection", "The document has no `detection`, `correlation`, `filter` or `hunt`. Look for a misspelt key."),
    ("no_falsepositives", "The rule does not say what else may meet it. Add `falsepositives`."),
    ("no_field", "The correlation lacks the field whose values count. Add `field` to its condition."),
    (
        "no_group_by",
        "The correlation has no `group-by`, so whatever happens anywhere counts together. Say what the events have in common.",
    ),
    ("no_id", "The rule has no `id`. Give it a UUID, so that its alerts keep their ids when its text changes."),
    ("no_level", "The rule has no level; medium is used. Give it one."),
    ("no_logsource", "The rule has no `logsource`. Say product, category or service."),
    ("no_lower_bound", "The correlation's condition has no lower bound, so one event fulfils it. Add `gte`."),
    ("no_references", "The correlation or filter refers to no rules. List ids or names."),
    ("no_status", "The rule has no status. Write test or experimental, later stable."),
    ("no_tags", "The rule has no tags. Name the tactic and technique of ATT&CK."),
    ("no_timespan", "The correlation or count has no time span. Add one, as `5m`."),
    ("no_title", "The rule has no title. Give it one."),
    ("no_type", "The correlation has no `type`. Give it one of the specification's."),
    ("not_a_map", "The document is no map. A rule is one."),
    (
        "only_negative",
        "The condition holds by what is absent alone, which is nearly always. Add a selection that must be met.",
    ),
    ("operator", "A condition has no `operator`. Give it one."),
    ("percentile", "`value_percentile` does not say which percentile. Add `percentile` to its condition."),
    ("pipeline", "A processing pipeline has something that is unknown or malformed; the pipeline is not used."),
    (
        "pipeline_failure",
        "A processing pipeline refuses the rule, or leaves nothing of it. Change the pipeline or the rule.",
    ),
    ("pipeline_ignored", "A part of a processing pipeline concerns the text of queries and has no effect here."),
    ("pipeline_unsupported", "A processing pipeline does what only makes sense for the text of queries. Take it out."),
    ("placeholder", "A placeholder has no value. Give its values, or write them into the rule."),
    ("quantifier", "A number of selections cannot be had. Write `1 of` or `all of`."),
    ("redundant_wildcard", "A wildcard does what the modifier does anyway. Take it out."),
    ("reference", "A reference is no id or name, is there twice, or is one too many."),
    ("reference_form", "A reference is no URL. Write where it can be read."),
    (
        "regex",
        "The regular expression cannot be compiled. Use what the specification allows: no look-around, no backreferences.",
    ),
    ("regex_ends", "`.*` at an end of an expression has no effect. Take it out."),
    ("regex_text", "An expression is a plain text. Use contains, startswith, endswith or the value itself."),
    (
        "related",
        "A related rule lacks id or type, or the type is unknown. Write derived, obsolete, merged, renamed or similar.",
    ),
    ("repeated_id", "Two rules have one id; the first stays. Give each its own."),
    ("repeated_key", "A key is there twice in one map. Put the values into a list, or make two selections."),
    ("repeated_selection", "Two selections say the same. One is enough: the condition may name it twice."),
    ("repeated_value", "A value is there twice, or differs by case alone, which does not count. Take one out."),
    ("selection_element", "An element of a selection is neither a map nor a word."),
    ("short_keyword", "A keyword is too short to tell anything. Ask for a field's value."),
    ("short_text", "A text to be found within a value is too short to tell anything. Ask for more."),
    ("single_element_list", "A list has one element. Write the value itself."),
    ("tag_form", "A tag is not of the form `namespace.name` in small letters. Write it so."),
    ("tag_namespace", "A tag has a namespace that the specification does not have. Look for a misspelling."),
    ("tag_repeated", "A tag is there twice. Take one out."),
    ("tag_value", "A tag is not one of its namespace. Look for a misspelling."),
    ("taxonomy", "The rule's taxonomy is unknown, so its names would match nothing. Use the names of `sigma`."),
    ("threshold", "A count has no threshold from 1."),
    ("timeframe", "`timeframe` is of Sigma 1 and has no effect. Write a correlation, or take it out."),
    ("timespan", "A time span cannot be read. Write a number and s, m, h, d or w."),
    ("title_length", "The title is longer than 256 characters. Shorten it."),
    ("too_many_tests", "The rule is larger than any real one. Split it."),
    ("unknown_action", "An action of the plan's format is unknown and does nothing."),
    ("unknown_key", "A key is unknown here. Look for a misspelling."),
    ("unknown_level", "The level is unknown; medium is used. Write informational, low, medium, high or critical."),
    (
        "unknown_logsource",
        "No source that is known feeds the rule's log source. Look for a misspelling, or extend the table.",
    ),
    ("unknown_logsource_part", "A part of `logsource` is unknown and has no effect."),
    ("unknown_modifier", "A modifier is unknown. Look for a misspelling."),
    ("unknown_operator", "An operator of the plan's format is unknown. Look for a misspelling."),
    ("unknown_playbook", "The rule suggests a playbook that is not there. Write the playbook, or mend the name."),
    ("unknown_reference", "A rule that is referred to is not there. Load it too, or mend the name."),
    ("unknown_selection", "The condition names a selection that is not there. Mend the name."),
    ("unknown_status", "The status is unknown. Write stable, test, experimental, deprecated or unsupported."),
    ("unknown_type", "The correlation's type is unknown. Look for a misspelling."),
    ("unused_selection", "A selection is not used by the condition. Use it or take it out."),
    ("value", "A value does not fit its modifiers."),
    ("wildcard_modifier", "A wildcard at the end of a value is what startswith, endswith or contains says. Use that."),
    ("yaml", "The text is no YAML, or too large or too deep."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_each_is_there_once() {
        let names: Vec<&str> = codes().iter().map(|(code, _)| *code).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
        assert_eq!(about("yaml"), Some("The text is no YAML, or too large or too deep."));
        assert_eq!(about("nothing"), None);
    }
}
