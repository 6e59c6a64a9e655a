//! When an answer comes, how a connection ends, what goes wrong on purpose, and what is said to a
//! person who asks.

use super::*;

// ---- when, and how it ends ----

#[test]
fn delay_and_jitter_put_the_answer_off() {
    let (delay, jitter) = (Duration::from_millis(100), Duration::from_millis(50));
    let rules = [
        Rule { delay, ..equals("delay").sends("x") },
        Rule { delay, jitter, ..equals("both").sends("x") },
        Rule { jitter, ..equals("jitter") },
        equals("none").sends("x"),
    ];
    let mut conversation = Conversation::new(&book(rules));
    for (message, number, millis) in [
        ("delay", u64::MAX, 100),
        ("both", 0, 100),
        ("both", u64::MAX, 150),
        ("both", u64::MAX / 2, 125),
        ("jitter", u64::MAX, 50),
        ("none", u64::MAX, 0),
    ] {
        conversation.surroundings.numbers = [number].into();
        conversation.say(message);
        assert_eq!(conversation.delay, Duration::from_millis(millis), "{message}");
    }
}

#[test]
fn close_closes_behind_the_reply_or_without_one() {
    let close = |rule: Rule| Rule { close: true, ..rule };
    let rules = [close(equals("QUIT").sends("bye")), close(equals("drop"))];
    let rules = Rules::compile(&book(rules)).unwrap();
    let expected = (b"bye".to_vec(), true, Answer::ReplyAndClose);
    assert_eq!(Conversation::with(&rules).hear("QUIT"), expected);
    let expected = (Vec::new(), true, Answer::Close);
    assert_eq!(Conversation::with(&rules).hear("drop"), expected);
}

// ---- faults ----

#[track_caller]
fn check_fault(fault: Fault, terminator: Option<&str>, expected: &Outcome) {
    let terminator = terminator.map(str::to_owned);
    let rules = [equals("a").sends("12345").fails(fault), any().sends("ok")];
    let found = Conversation::new(&RuleBook { terminator, ..book(rules) }).hear("a");
    assert_eq!(found, *expected);
}

#[test]
fn a_reset_answers_nothing() {
    check_fault(Fault::Reset, None, &(Vec::new(), true, Answer::Reset));
}

#[test]
fn half_of_a_reply_is_sent_without_its_end() {
    for terminator in [None, Some("\r\n")] {
        let expected = (b"12".to_vec(), false, Answer::ReplyAndClose);
        check_fault(Fault::Half, terminator, &expected);
    }
}

#[test]
fn a_stalled_connection_never_answers_again() {
    let rules = [equals("a").sends("x").fails(Fault::Stall), any().sends("ok")];
    check(&book(rules), [("b", Some("ok")), ("a", None), ("b", None), ("a", None)]);
}

#[test]
fn garbage_is_as_long_as_the_reply_no_text_and_one_line() {
    for terminator in ["", "\r\n"] {
        for length in [0, 1, 2, 9, 40] {
            let rules = [any().sends(&"x".repeat(length)).fails(Fault::Garbage)];
            let terminator = Some(terminator.to_owned());
            let book = RuleBook { terminator: terminator.clone(), ..book(rules) };
            let mut conversation = Conversation::new(&book);
            conversation.surroundings.numbers = [0x0A0D_7F00_C3A9_4142, 7, u64::MAX].into();
            let (reply, is_terminated, answer) = conversation.hear("a");
            let end = terminator.as_deref().unwrap().as_bytes();
            let garbage = reply.strip_suffix(end).unwrap();
            assert_eq!(garbage.len(), length.max(1));
            assert!(str::from_utf8(garbage).is_err() && !garbage.contains(&b'\n'));
            assert_eq!((is_terminated, answer), (false, Answer::Reply));
        }
    }
}

#[test]
fn a_fault_happens_as_often_as_its_probability_says() {
    let probability = Probability::from_millionths(250_000).unwrap();
    let rules = [Rule { probability, ..any().sends("ok").fails(Fault::Reset) }];
    let mut conversation = Conversation::new(&book(rules));
    let mut resets = 0;
    for at in 0..1000 {
        conversation.surroundings.numbers = [u64::MAX / 1000 * at].into();
        match conversation.hear("a") {
            (reply, _, Answer::Reply) => assert_eq!(reply, b"ok"),
            (reply, _, Answer::Reset) if reply.is_empty() => resets += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!((249..=251).contains(&resets), "{resets}");
}

#[test]
fn a_fault_that_never_happens_and_a_certain_one_need_no_luck() {
    for (millionths, answer) in [(0, Answer::Reply), (1_000_000, Answer::Reset)] {
        let probability = Probability::from_millionths(millionths).unwrap();
        let rules = [Rule { probability, ..any().sends("ok").fails(Fault::Reset) }];
        let mut conversation = Conversation::new(&book(rules));
        for number in [0, u64::MAX] {
            conversation.surroundings.numbers = [number].into();
            assert_eq!(conversation.hear("a").2, answer);
        }
    }
    assert_eq!(Probability::from_millionths(1_000_001), None);
}

// ---- for a person who asks ----

#[test]
fn a_verdict_names_the_rule_and_why_none_before_it() {
    let rules = [
        equals("b").sends("x"),
        prefix("a").when("mode", "data").sends("x"),
        contains("a").times(1).sends("once"),
        equals("a").sets("mode", "data").sends("1").sends("2"),
    ];
    let mut conversation = Conversation::new(&book(rules));
    let passed_over = |rule, why| PassedOver { rule, why };
    let state = Why::State { variable: "mode", is: "", wants: "data" };
    let verdict = conversation.responder.consider("a");
    let before = vec![passed_over(0, Why::Text), passed_over(1, state)];
    let expected =
        Verdict { rule: Some(2), passed_over: before.clone(), text: Some(0), is_stalled: false };
    assert_eq!(verdict, expected);
    // Asking changed nothing.
    assert_eq!(conversation.responder.consider("a"), expected);
    assert_eq!(conversation.say("a").unwrap(), "once");
    assert_eq!(conversation.say("a").unwrap(), "1");
    assert_eq!(conversation.responder.consider("a").rule, Some(1));
    assert_eq!(conversation.state(), [("mode", "data")]);
    let verdict = conversation.responder.consider("xa");
    assert_eq!((verdict.rule, verdict.text), (None, None));
    assert_eq!(verdict.passed_over[2], passed_over(2, Why::UsedUp { times: 1 }));
}
