//! A key-value store for everybody who connects: `set KEY VALUE`, `get KEY`, `delete KEY` and
//! `count`, a line each.
//!
//!     cargo run --example kv [ADDRESS]

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;
use talkback::wire::Framing;
use talkback::{Answer, Config, Reply, Responders, Server, from_fn};

/// One for all connections, on whatever workers they are. A lock is fine here though a worker must
/// not block: it is held for one operation of the map, which takes less time than any system call.
/// What takes longer, such as a file, belongs behind `offload`.
type Store = Mutex<HashMap<String, String>>;

fn answer(text: &str, store: &Store, reply: &mut Reply<'_>) -> Answer {
    let mut words = text.splitn(3, ' ');
    match (words.next(), words.next(), words.next()) {
        (Some("set"), Some(key), Some(value)) => {
            let (key, value) = (key.to_owned(), value.to_owned());
            let before = store.lock().insert(key, value);
            reply.push(if before.is_some() { "replaced" } else { "stored" });
        }
        (Some("get"), Some(key), None) => match store.lock().get(key) {
            Some(value) => reply.push(value),
            None => reply.push("unknown key"),
        },
        (Some("delete"), Some(key), None) => {
            let before = store.lock().remove(key);
            reply.push(if before.is_some() { "deleted" } else { "unknown key" });
        }
        (Some("count"), None, None) => reply.push(&store.lock().len().to_string()),
        (Some("quit"), None, None) => return Answer::Close,
        _ => reply.push("usage: set KEY VALUE | get KEY | delete KEY | count | quit"),
    }
    Answer::Reply
}

fn main() -> Result<(), Box<dyn Error>> {
    let (stop, stopped) = mpsc::channel();
    ctrlc::set_handler(move || {
        // Nobody listens any more to a second Ctrl-C.
        let _ = stop.send(());
    })?;

    let store = Arc::new(Store::default());
    let responders = Responders::default().with("kv", move |_client| {
        let store = store.clone();
        from_fn(move |text, reply, _context| answer(text, &store, reply))
    });
    let mut config = Config::default();
    let listener = &mut config.listeners[0];
    listener.address = std::env::args().nth(1).as_deref().unwrap_or("127.0.0.1:7001").parse()?;
    listener.framing = Framing::Line;
    listener.responder = "kv".to_owned();
    config.metrics.address = None;
    let server = Server::start_with(&config, &responders)?;
    println!("a key-value store on {}", server.addresses()[0]);

    stopped.recv()?;
    println!("served {} connections", server.drain().served);
    Ok(())
}
