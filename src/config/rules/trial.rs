//! The reading of a rules file on trial: each refusal says where, and what is taken answers as a
//! slow model does. For the tests here and for those in `fuzz`.

use std::io;
use std::path::Path;

use super::read_file;
use crate::config::Fault;
use crate::config::section::Notes;
use crate::config::trial::check_place;
use crate::responder::rules::trial;

/// Everything that must hold for the bytes of a rules file, and for what a client says to them.
#[track_caller]
pub(crate) fn check_rules(file: &[u8], messages: &[impl AsRef<str>]) {
    let valid = file.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let files = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let mut notes = Notes::new(Path::new("r.toml"), valid, &files);
    let book = read_file(&mut notes, valid.len() == file.len(), "");
    notes.faults.sort_by_key(Fault::rank);
    let lines: Vec<&[u8]> = file.split(|byte| *byte == b'\n').collect();
    for fault in &notes.faults {
        check_place(fault, &lines);
        assert_eq!(fault.key.is_empty(), fault.problem.starts_with("not TOML: "), "{fault}");
    }
    let faults = trial::check(&book, messages);
    assert!(!notes.faults.is_empty() || faults.is_empty(), "taken although {faults:?}");
}
