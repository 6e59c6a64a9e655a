//! The pages: which there are and what stands on them. A page is made from the values of the
//! `Watch` alone.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Watch;
use super::scrape::{Code, Page, Scrape};

const TEXT: &str = "text/plain; charset=utf-8";
/// Prometheus 3 refuses a scrape without exactly this.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The methods that a page knows, for `Allow`.
pub(super) const ALLOWED: &str = "GET, HEAD";

/// A page, made.
pub(super) struct Answer {
    pub(super) scrape: Scrape,
    pub(super) content_type: &'static str,
    /// Header fields beyond those that every answer has.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

/// Makes the page for a checked request. A panic in what the watch brings costs this answer, and
/// nothing else.
pub(super) fn answer(method: &str, path: &str, watch: &Watch) -> Answer {
    let page = route(path);
    if page == Page::Other {
        return text(page, Code::NotFound, "not found\n");
    }
    if !matches!(method, "GET" | "HEAD") {
        return text(page, Code::MethodNotAllowed, "method not allowed\n");
    }
    // The closures are only read from here, and a half-made page is thrown away.
    catch_unwind(AssertUnwindSafe(|| make(page, watch)))
        .unwrap_or_else(|_| text(page, Code::Failed, "this page could not be made\n"))
}

fn route(path: &str) -> Page {
    match path {
        "/metrics" => Page::Metrics,
        "/healthz" => Page::Healthz,
        "/readyz" => Page::Readyz,
        "/" => Page::Index,
        _ => Page::Other,
    }
}

fn make(page: Page, watch: &Watch) -> Answer {
    match page {
        Page::Metrics => Answer {
            scrape: Scrape::new(page, Code::Ok),
            content_type: EXPOSITION,
            headers: Vec::new(),
            body: (watch.metrics)(),
        },
        Page::Healthz => text(page, Code::Ok, "ok\n"),
        Page::Readyz if (watch.ready)() => text(page, Code::Ok, "ready\n"),
        Page::Readyz => text(page, Code::NotReady, "draining\n"),
        Page::Index => text(page, Code::Ok, INDEX),
        Page::Other => text(page, Code::NotFound, "not found\n"),
    }
}

const INDEX: &str = concat!(
    "talkback ",
    env!("CARGO_PKG_VERSION"),
    "\n\n",
    "/metrics  what became of every connection, byte and close, for Prometheus\n",
    "/healthz  200 while the process serves\n",
    "/readyz   200 while new connections are welcome, 503 while draining\n",
);

fn text(page: Page, code: Code, body: &str) -> Answer {
    Answer {
        scrape: Scrape::new(page, code),
        content_type: TEXT,
        headers: Vec::new(),
        body: body.as_bytes().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(ready: bool) -> Watch {
        Watch {
            metrics: Box::new(|| b"up 1\n".to_vec()),
            ready: Box::new(move || ready),
            answered: Box::new(|_| ()),
            rejected: Box::new(|_| ()),
        }
    }

    #[track_caller]
    fn check(method: &str, path: &str, ready: bool, code: u16, body: &str) {
        let answer = answer(method, path, &watch(ready));
        assert_eq!(answer.scrape.code.status(), code);
        assert_eq!(String::from_utf8_lossy(&answer.body), body);
        assert!(Scrape::ALL.contains(&answer.scrape), "{:?} is not listed", answer.scrape);
    }

    #[test]
    fn every_page_answers_get_and_head() {
        for method in ["GET", "HEAD"] {
            check(method, "/metrics", true, 200, "up 1\n");
            check(method, "/healthz", false, 200, "ok\n");
            check(method, "/readyz", true, 200, "ready\n");
            check(method, "/readyz", false, 503, "draining\n");
            check(method, "/", true, 200, INDEX);
            check(method, "/metrics/", true, 404, "not found\n");
        }
    }

    #[test]
    fn another_method_is_not_allowed_and_an_unknown_path_is_not_found_by_any() {
        for path in ["/metrics", "/healthz", "/readyz", "/"] {
            check("POST", path, true, 405, "method not allowed\n");
        }
        check("POST", "/x", true, 404, "not found\n");
        check("OPTIONS", "*", true, 404, "not found\n");
    }

    #[test]
    fn a_panic_in_the_watch_costs_one_answer() {
        let mut watch = watch(true);
        watch.metrics = Box::new(|| std::panic::resume_unwind(Box::new("no page")));
        assert_eq!(answer("GET", "/metrics", &watch).scrape.code, Code::Failed);
        assert_eq!(answer("GET", "/healthz", &watch).scrape.code, Code::Ok);
    }

    #[test]
    fn the_content_type_of_the_exposition_is_the_one_prometheus_takes() {
        assert_eq!(
            answer("GET", "/metrics", &watch(true)).content_type,
            "text/plain; version=0.0.4; charset=utf-8"
        );
    }
}
