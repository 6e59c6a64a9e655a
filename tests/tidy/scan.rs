//! Reads Rust as far as the rules of `tidy.rs` need it, in code that rustfmt has formatted.

/// Blanks for comments and for what stands in quotes; lines and columns stay where they were.
pub(crate) fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let length = quoted_length(rest, word).min(rest.len());
        if length > 0 {
            code.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        } else if let Some(first) = rest.chars().next() {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    code
}

/// How many bytes at the start of `rest` are a comment, a string or a character; 0 = none.
fn quoted_length(rest: &str, inside_word: bool) -> usize {
    let until = |end: &str, from: usize| {
        rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len())
    };
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return until("*/", 2);
    }
    if !inside_word && let Some(raw) = rest.strip_prefix("br").or(rest.strip_prefix('r')) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let opening = rest.len() - raw.len() + hashes + 1;
            return until(&format!("\"{}", "#".repeat(hashes)), opening);
        }
    }
    if let Some(text) = rest.strip_prefix('"') {
        return 1 + unescaped(text, '"');
    }
    // A lifetime has no closing quote behind its first character.
    let mut after = rest.strip_prefix('\'').map(str::chars).into_iter().flatten();
    match (after.next(), after.next()) {
        (Some('\\'), _) => 1 + unescaped(&rest[1..], '\''),
        (Some(first), Some('\'')) => 2 + first.len_utf8(),
        _ => 0,
    }
}

/// Bytes up to and with the first `end` that no backslash precedes.
fn unescaped(text: &str, end: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if c == end && !escaped {
            return at + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

/// Words, `::`, and every other visible character by itself, each with its line.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (at, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let length = match word {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                _ => word,
            };
            found.push((at + 1, &rest[..length]));
            rest = rest[length..].trim_start();
        }
    }
    found
}

/// Every path in the code, `use a::{b, c::d}` taken apart, each with the line it ends on.
pub(crate) fn paths(code: &str) -> Vec<(usize, Vec<&str>)> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        at = if is_word(tokens[at].1) { path(&tokens, at, &[], &mut found) } else { at + 1 };
    }
    found
}

/// Reads the path that begins at a word; where it goes on after it.
fn path<'a>(
    tokens: &[(usize, &'a str)],
    mut at: usize,
    prefix: &[&'a str],
    found: &mut Vec<(usize, Vec<&'a str>)>,
) -> usize {
    let token = |at: usize| tokens.get(at).map_or("", |(_, token)| *token);
    let mut segments = prefix.to_vec();
    let line = tokens[at].0;
    segments.push(token(at));
    while token(at + 1) == "::" && is_word(token(at + 2)) {
        at += 2;
        segments.push(token(at));
    }
    if token(at + 1) != "::" || token(at + 2) != "{" {
        found.push((line, segments));
        return at + 1;
    }
    at += 3;
    while at < tokens.len() && token(at) != "}" {
        at = if is_word(token(at)) { path(tokens, at, &segments, found) } else { at + 1 };
    }
    at + 1
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// A function with a body, from its `fn` to its closing brace.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) first: usize,
    pub(crate) last: usize,
}

impl Function {
    pub(crate) fn contains(&self, line: usize) -> bool {
        (self.first..=self.last).contains(&line)
    }
}

pub(crate) fn functions(code: &str) -> Vec<Function> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    for (at, pair) in tokens.windows(2).enumerate() {
        if let [(first, "fn"), (_, name)] = *pair
            && is_word(name)
            && let Some(last) = closing_line(&tokens[at..])
        {
            found.push(Function { name: name.to_owned(), first, last });
        }
    }
    found
}

/// The line of the brace that closes the first one; nothing where a `;` says that none opens.
fn closing_line(tokens: &[(usize, &str)]) -> Option<usize> {
    let (mut braces, mut others) = (0, 0);
    for (line, token) in tokens {
        match *token {
            "(" | "[" => others += 1,
            ")" | "]" => others -= 1,
            "{" => braces += 1,
            "}" if braces == 1 => return Some(*line),
            "}" => braces -= 1,
            ";" if braces == 0 && others == 0 => return None,
            _ => {}
        }
    }
    None
}

#[test]
fn comments_and_quotes_are_not_code() {
    let text = "a // b\n\"c\\\"{\" 'd' '\\'' r#\"e\"{\"# f::<'g> /* h\n{ */ for\"i\"";
    let code: String = blank(text).split_whitespace().collect();
    assert_eq!(code, "af::<'g>for");
    assert_eq!(blank(text).lines().count(), text.lines().count());
}
