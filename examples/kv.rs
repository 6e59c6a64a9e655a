//! A key-value store for everybody who connects: `set KEY VALUE`, `get KEY`, `delete KEY`, `count`
//! and `quit`, a line each.
//!
//!     cargo run --example kv [ADDRESS]

use std::collections::HashMap;
use std::error::Error;
use std::sync::mpsc;

use parking_lot::Mutex;
use talkback::wire::Framing;
use talkback::{Config, Responders, Server};

/// One for all connections, on whatever workers they are. A lock is fine here though a worker must
/// not block: it is held for one operation of the map, which takes less time than any system call.
/// What takes longer, such as a file, belongs behind `offload`.
type Store = Mutex<HashMap<String, String>>;

fn answer(text: &str, store: &Store) -> String {
    let mut words = text.splitn(3, ' ');
    let answer = match (words.next(), words.next(), words.next()) {
        (Some("set"), Some(key), Some(value)) => {
            let (key, value) = (key.to_owned(), value.to_owned());
            store.lock().insert(key, value).map_or("stored", |_| "replaced")
        }
        (Some("get"), Some(key), None) => match store.lock().get(key) {
            Some(value) => return value.clone(),
            None => "unknown key",
        },
        (Some("delete"), Some(key), None) => {
            store.lock().remove(key).map_or("unknown key", |_| "deleted")
        }
        (Some("count"), None, None) => return store.lock().len().to_string(),
        _ => "usage: set KEY VALUE | get KEY | delete KEY | count | quit",
    };
    answer.to_owned()
}

fn main() -> Result<(), Box<dyn Error>> {
    let (stop, stopped) = mpsc::channel();
    // Nobody listens any more to a second Ctrl-C.
    ctrlc::set_handler(move || stop.send(()).unwrap_or(()))?;

    let store = Store::default();
    let responders = Responders::default().with_map("kv", move |text| answer(text, &store));
    let mut config = Config::default();
    let listener = &mut config.listeners[0];
    listener.address = std::env::args().nth(1).as_deref().unwrap_or("127.0.0.1:7001").parse()?;
    listener.framing = Framing::Line;
    listener.responder = "kv".to_owned();
    listener.exit_word = Some("quit".to_owned());
    config.metrics.address = None;
    let server = Server::start_with(&config, &responders)?;
    println!("a key-value store on {}", server.addresses()[0]);

    stopped.recv()?;
    println!("served {} connections", server.drain().served);
    Ok(())
}
