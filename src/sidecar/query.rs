//! The query of `/connections`: text in, what is asked for or the reason of its refusal out.

/// What `/connections` is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The order: whatever is largest by this stands first.
    pub sort: Sort,
    /// The most connections that are shown, from 1 to [`Query::MAX_LIMIT`].
    pub limit: usize,
}

/// What connections are put in order by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// The time since accept.
    Age,
    /// The time since the last byte in either direction.
    Idle,
    /// Messages received.
    Messages,
    /// Bytes received.
    Received,
    /// Bytes of replies given to the kernel.
    Sent,
    /// Bytes in both directions.
    Bytes,
    /// Bytes of replies that the kernel has not taken.
    Pending,
}

impl Sort {
    /// Every order.
    pub const ALL: [Sort; 7] = [
        Sort::Age,
        Sort::Idle,
        Sort::Messages,
        Sort::Received,
        Sort::Sent,
        Sort::Bytes,
        Sort::Pending,
    ];

    /// The word in the query.
    pub fn as_str(self) -> &'static str {
        match self {
            Sort::Age => "age",
            Sort::Idle => "idle",
            Sort::Messages => "messages",
            Sort::Received => "received",
            Sort::Sent => "sent",
            Sort::Bytes => "bytes",
            Sort::Pending => "pending",
        }
    }
}

impl Default for Query {
    fn default() -> Query {
        Query { sort: Sort::Age, limit: 100 }
    }
}

/// What is wrong with a query. The client's text is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    Key,
    Twice,
    Sort,
    Limit,
}

impl Flaw {
    /// What is wrong, and what is allowed.
    pub(super) fn text(self) -> String {
        let wrong = match self {
            Flaw::Key => "an unknown key",
            Flaw::Twice => "a key stands there twice",
            Flaw::Sort => "an unknown value of sort",
            Flaw::Limit => "the limit is out of range",
        };
        let sorts = Sort::ALL.map(Sort::as_str).join(", ");
        format!(
            "{wrong}; allowed: sort (one of {sorts}) and limit (an integer from 1 to {})\n",
            Query::MAX_LIMIT
        )
    }
}

impl Query {
    /// The largest `limit`.
    pub const MAX_LIMIT: usize = 1000;

    /// Reads what stands behind the `?`. Every allowed word is plain, so that nothing is decoded.
    pub(super) fn parse(text: &str) -> Result<Query, Flaw> {
        let (mut sort, mut limit) = (None, None);
        // Nothing at all is no pair, an empty piece between two is an unknown one.
        for pair in text.split('&').filter(|_| !text.is_empty()) {
            let is_repeated = match pair.split_once('=') {
                Some(("sort", word)) => sort.replace(parse_sort(word)?).is_some(),
                Some(("limit", digits)) => limit.replace(parse_limit(digits)?).is_some(),
                _ => return Err(Flaw::Key),
            };
            if is_repeated {
                return Err(Flaw::Twice);
            }
        }
        let default = Query::default();
        Ok(Query { sort: sort.unwrap_or(default.sort), limit: limit.unwrap_or(default.limit) })
    }
}

fn parse_sort(word: &str) -> Result<Sort, Flaw> {
    Sort::ALL.into_iter().find(|sort| sort.as_str() == word).ok_or(Flaw::Sort)
}

fn parse_limit(digits: &str) -> Result<usize, Flaw> {
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let limit = digits.parse().ok().filter(|_| is_number);
    limit.filter(|limit| (1..=Query::MAX_LIMIT).contains(limit)).ok_or(Flaw::Limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<(Sort, usize), Flaw>) {
        assert_eq!(Query::parse(text), expected.map(|(sort, limit)| Query { sort, limit }));
    }

    #[test]
    fn each_key_may_be_left_out_and_they_stand_in_any_order() {
        check("", Ok((Sort::Age, 100)));
        check("limit=7", Ok((Sort::Age, 7)));
        check("sort=bytes", Ok((Sort::Bytes, 100)));
        check("sort=idle&limit=1", Ok((Sort::Idle, 1)));
        check("limit=1000&sort=pending", Ok((Sort::Pending, 1000)));
    }

    #[test]
    fn every_word_is_read_back() {
        for sort in Sort::ALL {
            check(&format!("sort={}", sort.as_str()), Ok((sort, 100)));
        }
    }

    #[test]
    fn what_is_not_allowed_is_refused() {
        for text in ["&", "sort", "limit", "a=b", "sort=age&", "Sort=age", "%73ort=age", "=1"] {
            check(text, Err(Flaw::Key));
        }
        for text in ["sort=", "sort=Age", "sort=age;limit=1", "sort=%61ge", "sort=age=1"] {
            check(text, Err(Flaw::Sort));
        }
        for number in ["", "0", "1001", "-1", "+1", "1.0", "0x1", "1 ", "9999999999999999999999"] {
            check(&format!("limit={number}"), Err(Flaw::Limit));
        }
        check("limit=1&limit=1", Err(Flaw::Twice));
        check("sort=age&limit=1&sort=idle", Err(Flaw::Twice));
    }

    #[test]
    fn a_refusal_says_what_is_allowed() {
        let text = Flaw::Key.text();
        for sort in Sort::ALL {
            assert!(text.contains(sort.as_str()), "{text}");
        }
        assert!(text.contains("from 1 to 1000") && text.ends_with('\n'), "{text}");
    }
}
