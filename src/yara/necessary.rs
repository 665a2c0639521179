//! Texts of which a value must contain one if a rule is to hold: what makes a YARA rule as cheap as any other.
//!
//! Everything here errs on the side of `None`, "not known": a text given too many would lose matches.

use std::collections::HashMap;

use boreal_parser::{
    expression::{Expression, ExpressionKind, ForSelection, VariableSet},
    hex_string::Token,
    regex::{Node, RepetitionKind, RepetitionRange},
    rule::{Rule, VariableDeclaration, VariableDeclarationValue},
};

/// Alternatives beyond this are no help: each would be an anchor.
const TEXTS_MAX: usize = 256;
/// A text shorter than this is in every second value.
const TEXT_BYTES_MIN: usize = 3;

/// One of these is needed; `None` if that is not known.
pub(crate) type Need = Option<Vec<String>>;

/// What a rule needs. `known` has the needs of the file's rules before it, which it may refer to.
pub(crate) fn of_rule(rule: &Rule, known: &HashMap<String, Need>) -> Need {
    let context = Context { variables: &rule.variables, known };
    let need = context.of(&rule.condition)?;
    let of_use = !need.is_empty() && need.len() <= TEXTS_MAX && need.iter().all(|text| text.len() >= TEXT_BYTES_MIN);
    of_use.then_some(need)
}

struct Context<'a> {
    variables: &'a [VariableDeclaration],
    known: &'a HashMap<String, Need>,
}

impl Context<'_> {
    fn of(&self, expression: &Expression) -> Need {
        use ExpressionKind as Kind;
        match &expression.expr {
            Kind::And(list) => list.iter().map(|part| self.of(part)).fold(None, better),
            Kind::Or(list) => union(list.iter().map(|part| self.of(part))),
            Kind::Variable(name)
            | Kind::VariableAt { variable_name: name, .. }
            | Kind::VariableIn { variable_name: name, .. } => self.of_variable(name),
            // `#a > 2` as `2 < #a` or `#a > 2`: true only if there is a match.
            Kind::Cmp { left, right, less_than, can_be_equal } => match (&left.expr, &right.expr) {
                (Kind::Count(name), Kind::Integer(least)) if !less_than && at_least_one(*least, *can_be_equal) => {
                    self.of_variable(name)
                }
                (Kind::Integer(least), Kind::Count(name)) if *less_than && at_least_one(*least, *can_be_equal) => {
                    self.of_variable(name)
                }
                _ => None,
            },
            Kind::For { selection, set, body: None }
            | Kind::ForIn { selection, set, .. }
            | Kind::ForAt { selection, set, .. } => self.of_set(selection, set),
            Kind::Identifier(identifier) if identifier.operations.is_empty() => {
                self.known.get(&identifier.name).cloned().flatten()
            }
            _ => None,
        }
    }

    fn of_set(&self, selection: &ForSelection, set: &VariableSet) -> Need {
        let named = |variable: &&VariableDeclaration| {
            set.elements.is_empty()
                || set.elements.iter().any(|element| {
                    if element.is_wildcard {
                        variable.name.starts_with(&element.name)
                    } else {
                        variable.name == element.name
                    }
                })
        };
        let mut needs = self.variables.iter().filter(named).map(of_declaration).peekable();
        needs.peek()?;
        match selection {
            ForSelection::All => needs.fold(None, better),
            ForSelection::Any => union(needs),
            ForSelection::Expr { expr, .. } => match expr.expr {
                ExpressionKind::Integer(least) if least > 0 => union(needs),
                _ => None,
            },
            ForSelection::None => None,
        }
    }

    fn of_variable(&self, name: &str) -> Need {
        // An anonymous `$` stands for the variable of a loop.
        let mut named = self.variables.iter().filter(|variable| !name.is_empty() && variable.name == name);
        named.next().and_then(of_declaration)
    }
}

const fn at_least_one(least: i64, can_be_equal: bool) -> bool {
    least > 0 || (least == 0 && !can_be_equal)
}

/// Of two sets that are both needed, the one whose shortest text is longer.
fn better(left: Need, right: Need) -> Need {
    let worth = |need: &Need| {
        need.as_ref().filter(|texts| texts.len() <= TEXTS_MAX).and_then(|texts| texts.iter().map(String::len).min())
    };
    if worth(&right) > worth(&left) { right } else { left }
}

fn union(needs: impl Iterator<Item = Need>) -> Need {
    let mut all = Vec::new();
    for need in needs {
        all.extend(need?);
        if all.len() > TEXTS_MAX {
            return None;
        }
    }
    Some(all)
}

fn of_declaration(variable: &VariableDeclaration) -> Need {
    let modifiers = &variable.modifiers;
    if modifiers.xor.is_some() || modifiers.base64.is_some() {
        return None;
    }
    let texts = match &variable.value {
        VariableDeclarationValue::Bytes(bytes) => vec![text_of(bytes)?],
        VariableDeclarationValue::Regex(regex) => of_node(&regex.ast)?,
        VariableDeclarationValue::HexString(tokens) => of_tokens(tokens)?,
    };
    // `wide` alone or with `ascii`: each byte is followed by a zero byte, in a value too.
    let narrow = modifiers.ascii || !modifiers.wide;
    let wide = texts.iter().filter(|_| modifiers.wide).map(|text| widened(text)).collect::<Option<Vec<_>>>()?;
    Some(texts.iter().filter(|_| narrow).cloned().chain(wide).collect())
}

fn widened(text: &str) -> Option<String> {
    text.is_ascii().then(|| text.chars().flat_map(|c| [c, '\0']).collect())
}

/// The text itself, or its longest ASCII part: bytes that are no characters may still be parts of some.
fn text_of(bytes: &[u8]) -> Option<String> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Some(text.to_owned()).filter(|text| !text.is_empty());
    }
    let longest = bytes.split(|byte| !byte.is_ascii()).max_by_key(|run| run.len())?;
    std::str::from_utf8(longest).ok().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn of_tokens(tokens: &[Token]) -> Need {
    let mut best = None;
    let mut run = Vec::new();
    for token in tokens {
        match token {
            Token::Byte(byte) => run.push(*byte),
            Token::Alternatives(list) => {
                best = better(best, text_of(&std::mem::take(&mut run)).map(|text| vec![text]));
                best = better(best, union(list.iter().map(|tokens| of_tokens(tokens))));
            }
            Token::NotByte(_) | Token::MaskedByte(..) | Token::NotMaskedByte(..) | Token::Jump(_) => {
                best = better(best, text_of(&std::mem::take(&mut run)).map(|text| vec![text]));
            }
        }
    }
    better(best, text_of(&run).map(|text| vec![text]))
}

fn of_node(node: &Node) -> Need {
    match node {
        Node::Alternation(list) => union(list.iter().map(of_node)),
        Node::Concat(list) => {
            let mut best = None;
            let mut run = String::new();
            for part in list {
                match part {
                    Node::Literal(literal) if literal.byte.is_ascii() => run.push(char::from(literal.byte)),
                    other => {
                        best = better(best, Some(vec![std::mem::take(&mut run)]).filter(|run| run != &[""]));
                        best = better(best, of_node(other));
                    }
                }
            }
            better(best, Some(vec![run]).filter(|run| run != &[""]))
        }
        Node::Group(inner) => of_node(inner),
        Node::Literal(literal) => literal.byte.is_ascii().then(|| vec![char::from(literal.byte).to_string()]),
        Node::Repetition { node, kind, .. } => {
            let once = match kind {
                RepetitionKind::OneOrMore => true,
                RepetitionKind::Range(
                    RepetitionRange::Exactly(least)
                    | RepetitionRange::AtLeast(least)
                    | RepetitionRange::Bounded(least, _),
                ) => *least > 0,
                RepetitionKind::ZeroOrOne | RepetitionKind::ZeroOrMore => false,
            };
            once.then(|| of_node(node)).flatten()
        }
        Node::Assertion(_) | Node::Class(_) | Node::Dot | Node::Empty | Node::Char(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use boreal_parser::file::YaraFileComponent;

    use super::*;

    /// What the last rule of a text needs, as one word.
    #[track_caller]
    fn check(strings: &str, condition: &str, wanted: Option<&[&str]>) {
        let strings = if strings.is_empty() { String::new() } else { format!("strings: {strings}") };
        let text = format!(
            "rule first {{ strings: $f = \"first\" condition: $f }} rule r {{ {strings} condition: {condition} }}"
        );
        let mut known = HashMap::new();
        let mut last = None;
        for component in boreal_parser::parse(&text).unwrap().components {
            if let YaraFileComponent::Rule(rule) = component {
                last = of_rule(&rule, &known);
                known.insert(rule.name.clone(), last.clone());
            }
        }
        assert_eq!(
            last.as_deref().map(|texts| texts.iter().map(String::as_str).collect::<Vec<_>>()).as_deref(),
            wanted
        );
    }

    #[test]
    fn conditions_say_what_they_need() {
        let three = r#"$a = "alpha" $b = "bravos" $c = "charlie""#;
        check(three, "any of them", Some(&["alpha", "bravos", "charlie"]));
        check(three, "all of them", Some(&["charlie"]));
        check(three, "2 of ($a, $b)", Some(&["alpha", "bravos"]));
        check(three, "$a and ($b or $c)", Some(&["bravos", "charlie"]));
        check(three, "$a or filesize > 3", None);
        check(three, "not $a", None);
        check(three, "not $a and $b", Some(&["bravos"]));
        check(three, "none of them", None);
        check(three, "#a > 0 and filesize < 1MB", Some(&["alpha"]));
        check(three, "#a >= 0", None);
        check(three, "#a < 5", None);
        check(three, "for any of them : ( not $ )", None);
        check(three, "$a at 0", Some(&["alpha"]));
        check(three, "50% of them", Some(&["alpha", "bravos", "charlie"]));
        check("", "first", Some(&["first"]));
        check("", "filesize > 0", None);
    }

    #[test]
    fn strings_say_what_they_need() {
        check(r#"$a = "Ab" "#, "$a", None);
        check(r#"$a = "cmd.exe" wide"#, "$a", Some(&["c\0m\0d\0.\0e\0x\0e\0"]));
        check(r#"$a = "cmd.exe" wide ascii nocase"#, "$a", Some(&["cmd.exe", "c\0m\0d\0.\0e\0x\0e\0"]));
        check(r#"$a = "cmd.exe" xor"#, "$a", None);
        check(r#"$a = "cmd.exe" base64"#, "$a", None);
        check(r#"$a = "x\xffpayload\xfe""#, "$a", Some(&["payload"]));
        check("$a = { 70 61 79 6C ?? 6F 61 64 73 31 }", "$a", Some(&["oads1"]));
        check("$a = { 41 ( 42 43 44 | 45 46 47 48 ) }", "$a", Some(&["BCD", "EFGH"]));
        check("$a = { ff d8 ?? e0 }", "$a", None);
        check(r"$a = /Invoke-(Mimi|Kerb)[a-z]+/i", "$a", Some(&["Invoke-"]));
        check(r"$a = /(curl|wget)\s+http/", "$a", Some(&["curl", "wget"]));
        check(r"$a = /(abcdef)?xyz/", "$a", Some(&["xyz"]));
        check(r"$a = /[a-z]+\d*/", "$a", None);
    }
}
