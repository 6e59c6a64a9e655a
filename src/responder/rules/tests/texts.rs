//! What is sent: holes, lists, line ends.

use super::*;

#[test]
fn captures_fill_what_is_sent() {
    let rules = [
        prefix("SET ").sends("set <${1}>"),
        contains(" is ").sends("<${1}> <${2}>"),
        matches(r"^(?<key>\w+)=(?<value>\d+)?(;)?").sends("${key} ${2} ${value} ${3} ${0}"),
    ];
    check(
        &book(rules),
        [
            ("SET 5 V", Some("set <5 V>")),
            ("SET ", Some("set <>")),
            ("a is is is b", Some("<a> <is is b>")),
            ("volt=12;x", Some("volt 12 12 ; volt=12;")),
            ("volt=", Some("volt    volt=")),
        ],
    );
}

#[test]
fn the_time_of_a_delayed_reply_is_that_of_its_sending() {
    let (delay, jitter) = (Duration::from_millis(1500), Duration::from_secs(1));
    let late = Rule { delay, jitter, ..equals("late").sends("{time} {asked}") };
    let mut conversation = Conversation::new(&book([late.sets("asked", "{time}")]));
    conversation.surroundings.numbers = [u64::MAX].into();
    let said = "2026-11-22T22:30:07.750Z 2026-11-22T22:30:05.250Z";
    assert_eq!(conversation.say("late").unwrap(), said);
}

#[test]
fn built_in_holes_are_filled() {
    let rules = [
        equals("who").sends("{peer} {count}"),
        equals("when").sends("{time}"),
        equals("dice").sends("{random:1..6} {random:-3..-3} {random:-5..5}"),
        any().sends("{{{message}}} $ $5 ${{1}}"),
    ];
    let mut conversation = Conversation::new(&book(rules));
    let mut say = |text| conversation.say(text).unwrap();
    assert_eq!(say("a"), "{a} $ $5 ${1}");
    assert_eq!(say("who"), "192.0.2.7:4711 2");
    assert_eq!(say("when"), "2026-11-22T22:30:05.250Z");
    assert_eq!(say("dice"), "1 -3 -5");
    conversation.surroundings.numbers = [u64::MAX, 1, u64::MAX / 2].into();
    assert_eq!(conversation.say("dice").unwrap(), "6 -3 0");
}

#[test]
fn a_random_number_is_any_of_its_range_and_as_often_as_any_other() {
    let mut conversation = Conversation::new(&book([any().sends("{random:1..6}")]));
    let mut found = [0; 6];
    for at in 0..600 {
        conversation.surroundings.numbers = [u64::MAX / 600 * at].into();
        let number: usize = conversation.say("").unwrap().parse().unwrap();
        found[number - 1] += 1;
    }
    assert!(found.iter().all(|times| (99..=101).contains(times)), "{found:?}");
}

#[test]
fn the_widest_range_of_random_numbers_is_right_at_its_ends() {
    let range = format!("{{random:{}..{}}}", i64::MIN, i64::MAX);
    let mut conversation = Conversation::new(&book([any().sends(&range)]));
    assert_eq!(conversation.say("").unwrap(), i64::MIN.to_string());
    conversation.surroundings.numbers = [u64::MAX].into();
    assert_eq!(conversation.say("").unwrap(), i64::MAX.to_string());
}

#[test]
fn a_list_is_sent_in_turn_by_each_connection() {
    let rules = [equals("next").sends("a").sends("").sends("c"), any()];
    let rules = Rules::compile(&book(rules)).unwrap();
    let mut first = Conversation::with(&rules);
    for reply in ["a", "", "c", "a"] {
        assert_eq!(first.say("next").unwrap(), reply);
    }
    assert_eq!(Conversation::with(&rules).say("next").unwrap(), "a");
    assert_eq!(first.say("next").unwrap(), "");
}

#[test]
fn default_answers_what_no_rule_does_in_turn_too() {
    let default = vec!["what, {message}?".to_owned(), "again?".to_owned()];
    let book = RuleBook { default, ..book([equals("a")]) };
    check(&book, [("b", Some("what, b?")), ("a", None), ("c", Some("again?"))]);
    check(&book, [("b", Some("what, b?")), ("b", Some("again?")), ("b", Some("what, b?"))]);
}

#[test]
fn an_empty_send_is_an_empty_reply_and_none_is_no_reply() {
    check(&book([equals("a").sends(""), equals("b")]), [("a", Some("")), ("b", None)]);
}

#[test]
fn a_greeting_is_sent_when_the_connection_opens() {
    let greeting = Some("hello {peer}, you are {x}\n".to_owned());
    let state = variables([("x", "new")]);
    let book = RuleBook { greeting, state, ..RuleBook::default() };
    let expected = (b"hello 192.0.2.7:4711, you are new".to_vec(), true, Answer::Reply);
    assert_eq!(Conversation::new(&book).open(), expected);
    let expected = (Vec::new(), true, Answer::Silence);
    assert_eq!(Conversation::new(&RuleBook::default()).open(), expected);
}

#[track_caller]
fn check_ends(terminator: Option<&str>, send: &str, sent: &str) {
    let terminator = terminator.map(str::to_owned);
    let is_terminated = terminator.is_none();
    let book = RuleBook { terminator, ..book([prefix("x").sends(send)]) };
    let (reply, found, answer) = Conversation::new(&book).hear("xa\nb\n");
    assert_eq!((str::from_utf8(&reply), answer), (Ok(sent), Answer::Reply), "{send:?}");
    assert_eq!(found, is_terminated, "{send:?}");
}

#[test]
fn line_ends_that_the_author_wrote_become_the_terminator() {
    for terminator in [None, Some("")] {
        check_ends(terminator, "1\n2\n", "1\n2");
        check_ends(terminator, "1\n\n", "1\n");
        check_ends(terminator, "1\r\n", "1");
        check_ends(terminator, "1\r", "1\r");
        check_ends(terminator, "1\r\n\r\n", "1\r\n");
        check_ends(terminator, "<${1}>\n", "<a\nb\n>");
    }
    check_ends(Some("\r\n"), "1\n2\n", "1\r\n2\r\n");
    check_ends(Some("\r\n"), "1\r\n2\r\n", "1\r\n2\r\n");
    check_ends(Some("\r\n"), "1\r", "1\r\r\n");
    check_ends(Some("\r\n"), "", "\r\n");
    check_ends(Some("\r\n"), "\n", "\r\n");
    check_ends(Some("\r\n"), "${1}\n-\n", "a\nb\n\r\n-\r\n");
    check_ends(Some("\r\n"), "-\n${1}", "-\r\na\nb\n\r\n");
    check_ends(Some(";\n"), "-\r${1}", "-\ra\nb\n;\n");
}
