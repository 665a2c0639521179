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
    ("aggregation", "An aggregation of Sigma 1 in a condition. Write it as a correlation."),
    ("alias", "An alias speaks of a rule that the correlation does not refer to. Name one of its `rules`."),
    ("aliases", "`aliases` is no map of maps. Write `aliases: {name: {rule: field}}`."),
    ("attribute", "An attribute has a value of the wrong kind and is left out. Write a text, or a list of texts."),
    ("bound", "A bound is no number, or none that fits. Counts want whole numbers from 0, percentiles 0 to 100."),
    ("chained_group", "A correlation groups by other fields than the correlation it refers to. Group both alike."),
    ("circle", "A correlation refers to itself. Take the reference out."),
    (
        "collection_action",
        "An `action` of Sigma 1 that is unknown or has nothing to repeat. Write global, reset or repeat.",
    ),
    ("condition", "The condition cannot be read. Mend it at the word that is named."),
    ("correlation", "`correlation` is no map."),
    ("count", "A rule counts twice, or within `any`, `all`, `not`. Count once, beside the other conditions."),
    ("date", "A date is not of the form YYYY-MM-DD. Write it so."),
    ("detection", "`detection` is no map, or a selection's name is no word."),
    ("empty_selection", "A selection is empty. Fill it or take it out."),
    ("encoded_value", "An encoding gives bytes that are no text. Put `base64` or `base64offset` behind it."),
    ("encoded_wildcard", "A value with wildcards cannot be encoded. Escape them."),
    ("field", "A field's name is missing, no text, or one too many."),
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
    ("inherited_id", "A rule of a collection has no id of its own. Give it one."),
    ("log_sources", "A file of log sources has something that is unknown or malformed; nothing of the file is taken."),
    ("logsource", "`logsource` is no map of words, or says nothing. Give product, category or service."),
    ("modifiers", "Modifiers cannot stand together. Leave one out."),
    (
        "no_channel",
        "A rule wants to notify channels that are not there. Notifications are set up in the configuration.",
    ),
    ("no_condition", "There is no condition. Write one."),
    ("no_description", "The rule has no description. Say what it finds and why that matters."),
    ("no_detection", "The document has no `detection`, `correlation` or `filter`. Look for a misspelt key."),
    ("no_field", "The correlation lacks the field whose values count. Add `field` to its condition."),
    ("no_id", "The rule has no `id`. Give it a UUID, so that its alerts keep their ids when its text changes."),
    ("no_level", "The rule has no level; medium is used. Give it one."),
    ("no_logsource", "The rule has no `logsource`. Say product, category or service."),
    ("no_references", "The correlation or filter refers to no rules. List ids or names."),
    ("no_status", "The rule has no status. Write test or experimental, later stable."),
    ("no_timespan", "The correlation or count has no time span. Add one, as `5m`."),
    ("no_title", "The rule has no title. Give it one."),
    ("no_type", "The correlation has no `type`. Give it one of the specification's."),
    ("not_a_map", "The document is no map. A rule is one."),
    ("not_yet_evaluated", "The specification has it, this engine does not evaluate it yet. The rule is not loaded."),
    ("operator", "A condition has no `operator`. Give it one."),
    ("placeholder", "A placeholder has no value. Give its values, or write them into the rule."),
    ("quantifier", "A number of selections cannot be had. Write `1 of` or `all of`."),
    ("reference", "A reference is no id or name, is there twice, or is one too many."),
    (
        "regex",
        "The regular expression cannot be compiled. Use what the specification allows: no look-around, no backreferences.",
    ),
    (
        "related",
        "A related rule lacks id or type, or the type is unknown. Write derived, obsolete, merged, renamed or similar.",
    ),
    ("repeated_id", "Two rules have one id; the first stays. Give each its own."),
    ("repeated_key", "A key is there twice in one map. Put the values into a list, or make two selections."),
    ("selection_element", "An element of a selection is neither a map nor a word."),
    ("taxonomy", "The rule's taxonomy is unknown, so its names would match nothing. Use the names of `sigma`."),
    ("threshold", "A count has no threshold from 1."),
    ("timeframe", "`timeframe` is of Sigma 1 and has no effect. Write a correlation, or take it out."),
    ("timespan", "A time span cannot be read. Write a number and s, m, h, d or w."),
    ("title_length", "The title is longer than 256 characters. Shorten it."),
    ("too_many_tests", "The rule is larger than any real one. Split it."),
    ("unknown_action", "An action of the plan's format is unknown and does nothing."),
    ("unknown_key", "A key is unknown here. Look for a misspelling."),
    ("unknown_level", "The level is unknown; medium is used. Write informational, low, medium, high or critical."),
    ("unknown_logsource_part", "A part of `logsource` is unknown and has no effect."),
    ("unknown_modifier", "A modifier is unknown. Look for a misspelling."),
    ("unknown_operator", "An operator of the plan's format is unknown. Look for a misspelling."),
    ("unknown_playbook", "The rule suggests a playbook that is not there. Write the playbook, or mend the name."),
    ("unknown_reference", "A rule that is referred to is not there. Load it too, or mend the name."),
    ("unknown_selection", "The condition names a selection that is not there. Mend the name."),
    ("unknown_status", "The status is unknown. Write stable, test, experimental, deprecated or unsupported."),
    ("unknown_type", "The correlation's type is unknown. Look for a misspelling."),
    ("value", "A value does not fit its modifiers."),
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
