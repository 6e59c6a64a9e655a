//! What a connection remembers, and the rules that ask for it.

use super::*;

#[test]
fn rules_wait_for_the_state_that_others_set() {
    let rules = [
        equals(".").when("mode", "data").sets("mode", "command").sends("250 taken"),
        any().when("mode", "data"),
        equals("DATA").sets("mode", "data").sends("354 go"),
        equals("NOOP").sends("250 {mode}"),
    ];
    let book = RuleBook { state: variables([("mode", "command")]), ..book(rules) };
    check(
        &book,
        [
            (".", None),
            ("NOOP", Some("250 command")),
            ("DATA", Some("354 go")),
            ("NOOP", None),
            ("DATA", None),
            (".", Some("250 taken")),
            ("NOOP", Some("250 command")),
        ],
    );
}

#[test]
fn a_variable_that_only_a_rule_names_begins_empty() {
    let rules = [any().when("seen", "").sets("seen", "yes").sends("first"), any().sends("{seen}")];
    check(&book(rules), [("a", Some("first")), ("b", Some("yes"))]);
}

#[test]
fn a_variable_may_be_called_like_the_beginning_of_a_range() {
    let rules = [any().sets("random_id", "7").sends("{random_id} {random:3..3}")];
    check(&book(rules), [("a", Some("7 3"))]);
}

#[test]
fn all_conditions_must_hold() {
    let rules = [
        equals("a").sets("a", "1"),
        equals("b").sets("b", "1"),
        any().when("a", "1").when("b", "1").sends("both"),
    ];
    check(&book(rules), [("x", None), ("a", None), ("x", None), ("b", None), ("x", Some("both"))]);
}

#[test]
fn set_sees_the_state_as_it_was_and_send_as_it_is() {
    let rules = [
        prefix("VOLT ").sets("volts", "${1}").sets("last", "{volts}").sends("{last} to {volts}"),
        equals("swap").sets("volts", "{last}").sets("last", "{volts}"),
        equals("VOLT?").sends("{volts}"),
    ];
    let book = RuleBook { state: variables([("volts", "0")]), ..book(rules) };
    check(
        &book,
        [
            ("VOLT 5", Some("0 to 5")),
            ("VOLT 6", Some("5 to 6")),
            ("swap", None),
            ("VOLT?", Some("5")),
        ],
    );
}

#[test]
fn a_state_belongs_to_its_connection() {
    let rules = [prefix("=").sets("x", "${1}"), any().sends("{x}")];
    let rules = Rules::compile(&book(rules)).unwrap();
    let (mut one, mut other) = (Conversation::with(&rules), Conversation::with(&rules));
    one.say("=1");
    assert_eq!(other.say("?").unwrap(), "");
    assert_eq!(one.say("?").unwrap(), "1");
    assert_eq!(one.state(), [("x", "1")]);
}

#[test]
fn line_ends_in_a_state_are_those_of_replies() {
    let rules = [equals("set").sets("body", "1\n2\n"), any().when("body", "1\n2").sends("{body}")];
    let terminator = Some("\r\n".to_owned());
    let mut conversation = Conversation::new(&RuleBook { terminator, ..book(rules) });
    conversation.say("set");
    assert_eq!(conversation.say("?").unwrap(), "1\r\n2\r\n");
}

#[test]
fn a_client_cannot_make_its_state_grow_without_end() {
    let rules = [any().sets("log", "{log}{message}").sets("other", "{message}")];
    let mut conversation = Conversation::new(&book(rules));
    let text = "x".repeat(20_000);
    assert_eq!(conversation.say(&text), None);
    assert_eq!(conversation.say(&text), None);
    let (reply, _, answer) = conversation.hear(&text);
    assert_eq!((reply.as_slice(), answer), (&b""[..], Answer::Failed));
    let rules = [any().sets("log", "{message}{message}{message}{message}")];
    let (_, _, answer) = Conversation::new(&book(rules)).hear(&text);
    assert_eq!(answer, Answer::Failed);
}

#[test]
fn after_so_many_times_a_rule_is_passed_over() {
    let rules = [equals("a").times(2).sends("1").sends("2").sends("3"), any().sends("other")];
    let rules = Rules::compile(&book(rules)).unwrap();
    for mut connection in [Conversation::with(&rules), Conversation::with(&rules)] {
        for reply in ["1", "2", "other", "other"] {
            assert_eq!(connection.say("a").unwrap(), reply);
        }
    }
}
