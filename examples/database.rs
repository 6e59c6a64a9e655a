//! A phone book in SQLite: `add NAME NUMBER`, `find NAME` and `count`, a line each. A query takes
//! the time it takes, and may wait for another that writes: so it is not a worker's business, but
//! that of `offload`'s threads.
//!
//!     cargo run --example database [ADDRESS [FILE]]

use std::error::Error;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};
use talkback::offload::Offload;
use talkback::wire::Framing;
use talkback::{Answer, Config, Context, Reply, Responder, Responders, Server};

/// Each client has a connection of its own to the database. All of this runs on `offload`'s
/// threads, one call at a time.
struct Book {
    file: PathBuf,
    database: Option<Connection>,
}

impl Book {
    fn answer(&self, text: &str) -> rusqlite::Result<String> {
        let Some(database) = &self.database else { return Ok("no database".to_owned()) };
        let mut words = text.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("add"), Some(name), Some(number)) => {
                let sql = "INSERT OR REPLACE INTO entries (name, number) VALUES (?1, ?2)";
                database.prepare_cached(sql)?.execute([name, number])?;
                Ok("added".to_owned())
            }
            (Some("find"), Some(name), None) => {
                let sql = "SELECT number FROM entries WHERE name = ?1";
                let mut query = database.prepare_cached(sql)?;
                let number = query.query_row([name], |row| row.get(0)).optional()?;
                Ok(number.unwrap_or_else(|| "not found".to_owned()))
            }
            (Some("count"), None, None) => {
                let sql = "SELECT count(*) FROM entries";
                let count: i64 = database.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
                Ok(count.to_string())
            }
            _ => Ok("usage: add NAME NUMBER | find NAME | count".to_owned()),
        }
    }
}

impl Responder for Book {
    fn open(&mut self, reply: &mut Reply<'_>, _: &mut Context<'_>) -> Answer {
        match connect(&self.file) {
            Ok(database) => {
                self.database = Some(database);
                Answer::Silence
            }
            Err(error) => {
                eprintln!("{}: {error}", self.file.display());
                reply.push("no database");
                Answer::ReplyAndClose
            }
        }
    }

    fn respond(&mut self, text: &str, reply: &mut Reply<'_>, _: &mut Context<'_>) -> Answer {
        match self.answer(text) {
            Ok(answer) => reply.push(&answer),
            Err(error) => {
                eprintln!("{}: {error}", self.file.display());
                reply.push("the database failed");
            }
        }
        Answer::Reply
    }
}

fn connect(file: &PathBuf) -> rusqlite::Result<Connection> {
    let database = Connection::open(file)?;
    database.busy_timeout(Duration::from_secs(5))?;
    Ok(database)
}

/// Once, before anybody connects.
fn create(file: &PathBuf) -> rusqlite::Result<()> {
    let database = connect(file)?;
    // Readers and a writer do not wait for each other.
    database.pragma_update(None, "journal_mode", "WAL")?;
    let table = "CREATE TABLE IF NOT EXISTS entries (name TEXT PRIMARY KEY, number TEXT NOT NULL)";
    database.execute(table, [])?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let (stop, stopped) = mpsc::channel();
    ctrlc::set_handler(move || {
        // Nobody listens any more to a second Ctrl-C.
        let _ = stop.send(());
    })?;

    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7003".to_owned());
    let file = PathBuf::from(arguments.next().unwrap_or_else(|| "phone-book.sqlite".to_owned()));
    create(&file)?;
    let pool = Offload::new(4)?.refusal("too many questions, try again later");
    let book = pool.responder(move |_client| Book { file: file.clone(), database: None });
    let responders = Responders::default().with("book", book);
    let mut config = Config::default();
    let listener = &mut config.listeners[0];
    listener.address = address.parse()?;
    listener.framing = Framing::Line;
    listener.responder = "book".to_owned();
    config.metrics.address = None;
    let server = Server::start_with(&config, &responders)?;
    println!("a phone book on {}", server.addresses()[0]);

    stopped.recv()?;
    println!("served {} connections", server.drain().served);
    Ok(())
}
