//! Where one statement ends and the next begins: at semicolons that stand in no text, name or comment.

/// The statements of a text, without their semicolons; comments alone are none.
pub(super) fn statements(text: &str) -> Vec<String> {
    let (mut done, rest) = parts(text);
    done.push(rest);
    done.retain(|statement| !is_blank(statement));
    done.into_iter().map(|statement| statement.trim().to_owned()).collect()
}

/// Whether the last statement of a text has ended, so that a person is not waited for.
pub(super) fn is_complete(text: &str) -> bool {
    is_blank(&parts(text).1)
}

/// What ended with a semicolon, and the rest.
fn parts(text: &str) -> (Vec<String>, String) {
    let (mut done, mut current) = (Vec::new(), String::new());
    let mut chars = text.chars().peekable();
    let mut inside = Inside::Statement;
    while let Some(char) = chars.next() {
        let next = chars.peek().copied();
        match inside {
            Inside::Statement if char == ';' => {
                done.push(std::mem::take(&mut current));
                continue;
            }
            Inside::Statement => inside = Inside::begun(char, next),
            // A doubled quote ends and begins: the same as one that goes on.
            Inside::Quoted(quote) if char == quote => inside = Inside::Statement,
            Inside::Line if char == '\n' => inside = Inside::Statement,
            Inside::Block(depth) => {
                let second = match (char, next) {
                    ('*', Some('/')) => Some(depth.checked_sub(1)),
                    ('/', Some('*')) => Some(Some(depth + 1)),
                    _ => None,
                };
                if let Some(depth) = second {
                    current.push(char);
                    current.extend(chars.next());
                    inside = depth.filter(|depth| *depth > 0).map_or(Inside::Statement, Inside::Block);
                    continue;
                }
            }
            Inside::Quoted(_) | Inside::Line => {}
        }
        current.push(char);
        if let Inside::Block(0) = inside {
            current.extend(chars.next());
            inside = Inside::Block(1);
        }
    }
    (done, current)
}

#[derive(Clone, Copy)]
enum Inside {
    Statement,
    Quoted(char),
    Line,
    /// How deep; 0 where it just begins.
    Block(usize),
}

impl Inside {
    fn begun(char: char, next: Option<char>) -> Inside {
        match (char, next) {
            ('\'' | '"', _) => Inside::Quoted(char),
            ('-', Some('-')) => Inside::Line,
            ('/', Some('*')) => Inside::Block(0),
            _ => Inside::Statement,
        }
    }
}

/// Whether there is nothing but space and line comments.
fn is_blank(text: &str) -> bool {
    text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with("--"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &[&str], complete: bool) {
        assert_eq!(statements(text), expect, "{text}");
        assert_eq!(is_complete(text), complete, "{text}");
    }

    #[test]
    fn statements_end_at_their_semicolons() {
        check("select 1", &["select 1"], false);
        check("select 1;", &["select 1"], true);
        check("select 1; select\n2 ;", &["select 1", "select\n2"], true);
        check("select ';' ; select \";\"", &["select ';'", "select \";\""], false);
        check("select 'it''s;' ;", &["select 'it''s;'"], true);
        check("-- a; b\nselect 1;", &["-- a; b\nselect 1"], true);
        check("select 1 -- it's;\n;", &["select 1 -- it's;"], true);
        check("select /* ; /* ; */ ; */ 1;", &["select /* ; /* ; */ ; */ 1"], true);
        check("select /*/ ; */ 1;", &["select /*/ ; */ 1"], true);
        check("select 'a;", &["select 'a;"], false);
        check(" ;; -- no\n", &[], true);
        check("", &[], true);
    }
}
