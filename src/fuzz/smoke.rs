//! The targets of `fuzz` without a fuzzer, on every test run: each file of their corpora, and
//! mutations of them that are the same on every machine.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{RngSeed, TestRunner};

use super::{config, framing, request_head, rules};
use crate::config::{Environment, Overrides, load, reference, rules_reference};

/// What a corpus may weigh at most: it is read on every run, and by people.
const MAX_FILES: usize = 200;
const MAX_BYTES: usize = 200 << 10;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Names and contents, in the order of the names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = fuzz().join("corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(directory)
        .expect("every target has a corpus")
        .map(|entry| entry.expect("the corpus can be listed"))
        .map(|entry| {
            let bytes = fs::read(entry.path()).expect("the corpus can be read");
            (entry.file_name().to_string_lossy().into_owned(), bytes)
        })
        .collect();
    files.sort();
    files
}

/// A piece of an input replaced by something of the same kind, or of none.
#[derive(Debug, Clone)]
struct Edit {
    at: Index,
    removed: usize,
    /// From another file, so many bytes from there.
    taken: Option<(Index, Index, usize)>,
    new: Vec<u8>,
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let taken = prop::option::of((any::<Index>(), any::<Index>(), 0..32_usize));
    let edit = (any::<Index>(), 0..8_usize, taken, vec(any::<u8>(), 0..4))
        .prop_map(|(at, removed, taken, new)| Edit { at, removed, taken, new });
    vec(edit, 1..5)
}

fn mutated(corpus: &[(String, Vec<u8>)], file: Index, edits: &[Edit]) -> Vec<u8> {
    let mut bytes = file.get(corpus).1.clone();
    for Edit { at, removed, taken, new } in edits {
        let start = at.index(bytes.len() + 1);
        let end = bytes.len().min(start + removed);
        let mut piece = new.clone();
        if let Some((file, at, length)) = taken {
            let other = &file.get(corpus).1;
            let start = at.index(other.len() + 1);
            piece.extend_from_slice(&other[start..other.len().min(start + length)]);
        }
        bytes.splice(start..end, piece);
    }
    bytes
}

#[track_caller]
fn check(target: &str, run: fn(&[u8]), mutations: u32) {
    let corpus = corpus(target);
    let bytes: usize = corpus.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(!corpus.is_empty() && corpus.len() <= MAX_FILES, "{} files", corpus.len());
    assert!(bytes <= MAX_BYTES, "{bytes} bytes");
    for (name, bytes) in &corpus {
        // Shown only where the next line fails.
        println!("fuzz/corpus/{target}/{name}");
        run(bytes);
    }
    let mut runner = TestRunner::new(ProptestConfig {
        cases: mutations,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::default()
    });
    let tried = runner.run(&(any::<Index>(), edits()), |(file, edits)| {
        run(&mutated(&corpus, file, &edits));
        Ok(())
    });
    tried.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn framing_holds_for_its_corpus_and_mutations_of_it() {
    check("framing", framing, 12_000);
}

#[test]
fn config_holds_for_its_corpus_and_mutations_of_it() {
    check("config", config, 20_000);
}

#[test]
fn rules_hold_for_their_corpus_and_mutations_of_it() {
    check("rules", rules, 6_000);
}

#[test]
fn request_head_holds_for_its_corpus_and_mutations_of_it() {
    check("request_head", request_head, 40_000);
}

/// A key that no file of the corpus has is one that no mutation finds.
#[test]
fn every_key_stands_in_the_corpus_of_config_with_a_value_of_its_own() {
    let path = |name| fuzz().join("corpus/config").join(name);
    for (name, keys) in
        [("every-key-at-another-value", reference()), ("rules-inline", rules_reference())]
    {
        let text = fs::read_to_string(path(name)).unwrap();
        for key in keys {
            let name = key.name.rsplit('.').next().unwrap();
            let has = |line: &str| {
                line.split_once(" = ")
                    .is_some_and(|(found, value)| found == name && value != key.default)
            };
            assert!(text.lines().any(has), "{}", key.name);
        }
    }
    for name in ["every-key-at-another-value", "rules-inline"] {
        let overrides = Overrides { config: Some(path(name)), ..Overrides::default() };
        load(&overrides, &Environment::default()).unwrap();
    }
}

/// The fuzzer itself is built by hand alone; nothing may stand there that is not run here.
#[test]
fn every_target_only_calls_its_check() {
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let mut targets: Vec<String> = fs::read_dir(fuzz().join("fuzz_targets"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    targets.sort();
    assert_eq!(targets, ["config.rs", "framing.rs", "request_head.rs", "rules.rs"]);
    for file in targets {
        let target = file.trim_end_matches(".rs");
        let text = fs::read_to_string(fuzz().join("fuzz_targets").join(&file)).unwrap();
        let expected = format!(
            "#![no_main]\n\n\
             libfuzzer_sys::fuzz_target!(|input: &[u8]| talkback::fuzz::{target}(input));\n"
        );
        assert_eq!(text, expected, "{file}");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{file}\"")), "{file}");
    }
}
