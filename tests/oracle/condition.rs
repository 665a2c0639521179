//! The language of `condition`.
//!
//! "Operator Precedence (least to most binding): or, and, not, x of search-identifier, ( expression )" (Condition).

/// A condition over search identifiers.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    Or(Vec<Condition>),
    And(Vec<Condition>),
    Not(Box<Condition>),
    /// This search identifier.
    Name(String),
    /// At least so many of them.
    Some(usize, Vec<String>),
}

impl Condition {
    /// Reads a condition over these search identifiers.
    pub(crate) fn read(text: &str, names: &[&str]) -> Result<Condition, String> {
        let spaced = text.replace('(', " ( ").replace(')', " ) ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut reader = Reader { words: &words, names };
        let condition = reader.or()?;
        match reader.words {
            [] => Ok(condition),
            [word, ..] => Err(format!("{word:?} is left over of {text:?}")),
        }
    }

    pub(crate) fn holds(&self, of: &dyn Fn(&str) -> bool) -> bool {
        match self {
            Condition::Or(list) => list.iter().any(|condition| condition.holds(of)),
            Condition::And(list) => list.iter().all(|condition| condition.holds(of)),
            Condition::Not(condition) => !condition.holds(of),
            Condition::Name(name) => of(name),
            Condition::Some(number, names) => names.iter().filter(|name| of(name)).count() >= *number,
        }
    }
}

struct Reader<'w> {
    words: &'w [&'w str],
    names: &'w [&'w str],
}

impl<'w> Reader<'w> {
    fn or(&mut self) -> Result<Condition, String> {
        let mut list = vec![self.and()?];
        while self.accept("or") {
            list.push(self.and()?);
        }
        Ok(Condition::Or(list))
    }

    fn and(&mut self) -> Result<Condition, String> {
        let mut list = vec![self.not()?];
        while self.accept("and") {
            list.push(self.not()?);
        }
        Ok(Condition::And(list))
    }

    fn not(&mut self) -> Result<Condition, String> {
        if self.accept("not") {
            return Ok(Condition::Not(Box::new(self.not()?)));
        }
        if self.accept("(") {
            let inner = self.or()?;
            return if self.accept(")") { Ok(inner) } else { Err("a bracket is not closed".to_owned()) };
        }
        let word = self.take()?;
        if self.accept("of") {
            return self.quantified(word);
        }
        if self.names.contains(&word) {
            return Ok(Condition::Name(word.to_owned()));
        }
        Err(format!("{word:?} is no search identifier"))
    }

    /// "Logical OR (`1 of them`) or AND (`all of them`) across all defined search identifiers not starting with an
    /// underscore"; with a pattern, "restricted to matching search identifiers. Matching is done with * wildcards".
    fn quantified(&mut self, quantity: &str) -> Result<Condition, String> {
        let which = self.take()?;
        let them = which.eq_ignore_ascii_case("them");
        let fits = |name: &str| if them { !name.starts_with('_') } else { fits_name(which, name) };
        let list: Vec<String> = self.names.iter().filter(|name| fits(name)).map(|name| (*name).to_owned()).collect();
        if list.is_empty() {
            return Err(format!("no search identifier is like {which:?}"));
        }
        let number = match quantity.to_lowercase().as_str() {
            "any" => 1,
            "all" => list.len(),
            // The specification has `1 of` only; more than one is read alike.
            number => number.parse().ok().filter(|number| (1..=list.len()).contains(number)).ok_or("how many of?")?,
        };
        Ok(Condition::Some(number, list))
    }

    fn take(&mut self) -> Result<&'w str, String> {
        let (word, rest) = self.words.split_first().ok_or("the condition ends too early")?;
        self.words = rest;
        Ok(word)
    }

    fn accept(&mut self, wanted: &str) -> bool {
        match self.words.split_first() {
            Some((word, rest)) if word.eq_ignore_ascii_case(wanted) => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }
}

/// `*` stands for any characters. Names are compared as they are written.
fn fits_name(pattern: &str, name: &str) -> bool {
    match pattern.chars().next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = pattern.trim_start_matches('*');
            name.char_indices()
                .map(|(at, _)| at)
                .chain([name.len()])
                .any(|at| name.get(at..).is_some_and(|name| fits_name(rest, name)))
        }
        Some(c) => match (pattern.strip_prefix(c), name.strip_prefix(c)) {
            (Some(pattern), Some(name)) => fits_name(pattern, name),
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_bind_as_the_specification_says() {
        let names = ["a", "b", "sel_1", "sel_2", "_x"];
        for (condition, set, expect) in [
            ("a or b and sel_1", "a", true),
            ("(a or b) and sel_1", "a", false),
            ("not a and b", "b", true),
            ("not (a and b)", "a", true),
            ("not not a", "a", true),
            ("1 of sel_*", "sel_2", true),
            ("all of sel_*", "sel_2", false),
            ("all of sel_*", "sel_1 sel_2", true),
            ("1 of them", "_x", false),
            ("all of them", "a b sel_1 sel_2", true),
            ("1 of _*", "_x", true),
            ("not 1 of sel_* and a", "a", true),
            ("1 of *_2", "sel_2", true),
            ("2 of them", "a sel_1", true),
            ("2 of them", "a _x", false),
        ] {
            let set: Vec<&str> = set.split(' ').collect();
            let read = Condition::read(condition, &names).unwrap();
            assert_eq!(read.holds(&|name| set.contains(&name)), expect, "{condition} of {set:?}");
        }
        for bad in ["", "a b", "(a", "a and", "c", "1 of c*", "0 of them", "9 of them"] {
            assert!(Condition::read(bad, &names).is_err(), "{bad}");
        }
    }
}
