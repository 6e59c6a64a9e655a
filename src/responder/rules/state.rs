//! What a connection remembers: the variables of its rules. One that never set any owns nothing.

use std::fmt::{self, Write};

use super::plan::Rules;

/// What the written values of a connection may have together, in bytes: a client chooses them.
pub(super) const MAX_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct State {
    /// Empty until the first is set.
    values: Vec<Value>,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    /// One of those that are kept with the rules.
    Fixed(usize),
    Written(Box<str>),
}

impl State {
    pub(super) fn get<'a>(&'a self, rules: &'a Rules, variable: usize) -> &'a str {
        match self.values.get(variable) {
            None => &rules.values[variable],
            Some(Value::Fixed(at)) => &rules.values[*at],
            Some(Value::Written(text)) => text,
        }
    }

    pub(super) fn set(&mut self, rules: &Rules, variable: usize, value: Value) {
        if self.values.is_empty() {
            self.values = (0..rules.variables.len()).map(Value::Fixed).collect();
        }
        self.values[variable] = value;
    }

    /// Whether all that was written is within the bound.
    pub(super) fn is_bounded(&self) -> bool {
        let written = self.values.iter().map(|value| match value {
            Value::Fixed(_) => 0,
            Value::Written(text) => text.len(),
        });
        written.sum::<usize>() <= MAX_BYTES
    }
}

/// A text that stops to grow at the bound.
#[derive(Debug, Default)]
pub(super) struct Bounded(pub(super) String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_BYTES {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}
