//! An alert's expression cut into what it compares: each side must find something while all is
//! well, which the whole must not.

/// What stands on either side of the comparisons of an expression, through `and`, `or`, `unless`
/// and parentheses around the whole. An expression that compares nothing is its one side.
pub fn sides(expression: &str) -> Vec<&str> {
    let Some((first, rest)) = outermost(expression) else { return vec![unwrapped(expression)] };
    let mut found = sides(first);
    found.extend(rest.into_iter().flat_map(|term| sides(term.text)));
    found
}

/// The expression with a difference for each comparison, and `and` for `unless`: it finds what it
/// compares and combines, if the labels of both sides fit together at all.
pub fn joined(expression: &str) -> String {
    let Some((first, rest)) = outermost(expression) else { return format!("({expression})") };
    let mut joined = self::joined(first);
    for Term { operator, matching, text } in rest {
        let operator = match operator {
            "or" => "or",
            "and" | "unless" => "and",
            _ => "-",
        };
        let matching = matching.trim().trim_start_matches("bool").trim();
        let text = self::joined(text);
        for part in [operator, matching, &text].into_iter().filter(|part| !part.is_empty()) {
            joined += " ";
            joined += part;
        }
    }
    format!("({joined})")
}

/// An operator, `on (…) group_left (…)` behind it, and what stands to its right.
struct Term<'a> {
    operator: &'a str,
    matching: &'a str,
    text: &'a str,
}

/// The expression cut at its loosest operators; nothing if it compares and combines nothing.
fn outermost(expression: &str) -> Option<(&str, Vec<Term<'_>>)> {
    let expression = unwrapped(expression);
    let operators = [&["or"][..], &["and", "unless"], &["==", "!=", ">=", "<=", ">", "<"]];
    let mut cuts = operators.into_iter().map(|operators| cut(expression, operators));
    cuts.find(|(_, rest)| !rest.is_empty())
}

/// Without the parentheses around all of it.
fn unwrapped(expression: &str) -> &str {
    let mut expression = expression.trim();
    while expression.starts_with('(') && closing(expression) == expression.len() - 1 {
        expression = expression[1..expression.len() - 1].trim();
    }
    expression
}

/// Where the parenthesis is that closes the first one.
fn closing(text: &str) -> usize {
    let mut parts = Outside::of(&text[1..]);
    let end = parts.find(|(_, part)| *part == ")").expect("parentheses come in pairs");
    end.0 + 1
}

/// Cut at the operators outside of all parentheses.
fn cut<'a>(expression: &'a str, operators: &[&str]) -> (&'a str, Vec<Term<'a>>) {
    let outside = Outside::of(expression);
    let found: Vec<_> = outside.filter(|(_, part)| operators.contains(part)).collect();
    let mut ends = found.iter().skip(1).map(|(at, _)| *at).chain([expression.len()]);
    let term = |(at, operator): &(usize, &'a str)| {
        let right = &expression[at + operator.len()..ends.next().unwrap_or(expression.len())];
        let (matching, text) = right.split_at(matching(right));
        Term { operator, matching, text: text.trim() }
    };
    let first = found.first().map_or(expression, |(at, _)| &expression[..*at]);
    (first.trim(), found.iter().map(term).collect())
}

/// How long `bool on (…) group_left (…)` behind an operator is.
fn matching(text: &str) -> usize {
    let mut length = 0;
    loop {
        let rest = text[length..].trim_start();
        let start = text.len() - rest.len();
        let word = rest.split(|c: char| !is_of_a_word(c)).next().unwrap_or("");
        if !["bool", "on", "ignoring", "group_left", "group_right"].contains(&word) {
            return length;
        }
        let after = rest[word.len()..].trim_start();
        length = start + word.len();
        if word != "bool" && after.starts_with('(') {
            length = text.len() - after.len() + closing(after) + 1;
        }
    }
}

fn is_of_a_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// The words and signs of an expression outside of all brackets and strings, with their places;
/// a bracket that closes what was not opened is one of them.
struct Outside<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Outside<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    /// The next word, string, comparison or single character.
    fn part(&self) -> Option<&'a str> {
        let rest = &self.text[self.at..];
        let first = rest.chars().next()?;
        let length = match first {
            '"' | '\'' | '`' => string(rest, first),
            _ if is_of_a_word(first) => rest.find(|c: char| !is_of_a_word(c)).unwrap_or(rest.len()),
            '=' | '!' | '>' | '<' if rest[1..].starts_with('=') => 2,
            _ => first.len_utf8(),
        };
        Some(&rest[..length])
    }
}

/// How long the string is that the text begins with.
fn string(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == quote && !is_escaped {
            return at + 1;
        }
        is_escaped = c == '\\' && quote != '`' && !is_escaped;
    }
    panic!("a string without an end: {text}");
}

impl<'a> Iterator for Outside<'a> {
    type Item = (usize, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let part = self.part()?;
            let (at, depth) = (self.at, self.depth);
            self.at += part.len();
            match part {
                "(" | "[" | "{" => self.depth += 1,
                ")" | "]" | "}" if depth > 0 => self.depth -= 1,
                _ if depth == 0 => return Some((at, part)),
                _ => {}
            }
        }
    }
}

#[track_caller]
fn check(expression: &str, expected: &[&str]) {
    assert_eq!(sides(expression), expected, "{expression}");
}

#[test]
fn an_expression_is_cut_at_its_outermost_comparisons() {
    check("a", &["a"]);
    check("rate(a[5m]) > 0.5", &["rate(a[5m])", "0.5"]);
    check("a / on (instance) group_left (x) b >= 1", &["a / on (instance) group_left (x) b", "1"]);
    check("a <= bool 2", &["a", "2"]);
    check("a == on (instance, job) group_left () (b)", &["a", "b"]);
    check("a != ignoring(reason) group_right b", &["a", "b"]);
    check("sum by (le) (a > 1)", &["sum by (le) (a > 1)"]);
    check("a{b=\"x > y\",c!=\"and\",d=~\"(\"} < 3", &["a{b=\"x > y\",c!=\"and\",d=~\"(\"}", "3"]);
    check("a{b='\\'>'} > 3", &["a{b='\\'>'}", "3"]);
}

#[test]
fn an_expression_is_cut_at_its_operators_on_sets_and_within_their_sides() {
    check("a > 1 and b < 2", &["a", "1", "b", "2"]);
    check("(a > 1) and on (instance) (b == 0)", &["a", "1", "b", "0"]);
    check("(a unless b) or (c)", &["a", "b", "c"]);
    check("((a > 1))", &["a", "1"]);
    check("(a) + (b)", &["(a) + (b)"]);
    check("a:and:b > 1", &["a:and:b", "1"]);
    check("and_a > 1 unless ignoring (x) or_b", &["and_a", "1", "or_b"]);
}

#[track_caller]
fn check_joined(expression: &str, expected: &str) {
    assert_eq!(joined(expression), expected, "{expression}");
}

#[test]
fn an_expression_without_its_conditions_still_joins_what_it_joined() {
    check_joined("a", "(a)");
    check_joined("a + b > 1", "((a + b) - (1))");
    check_joined("a > bool on (x) group_left () b", "((a) - on (x) group_left () (b))");
    check_joined("(a > 1) unless on (x) (b == 0)", "(((a) - (1)) and on (x) ((b) - (0)))");
    check_joined("a and b or c unless d", "(((a) and (b)) or ((c) and (d)))");
    check_joined("a and b > 1 and c", "((a) and ((b) - (1)) and (c))");
}
