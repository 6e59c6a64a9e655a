//! The pages: which there are and what stands on them. A page is made from the values of the
//! `Watch` alone.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Watch;
use super::head::Request;
use super::query::Query;
use super::scrape::{Code, Page, Scrape};
use super::status;

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
/// Prometheus 3 refuses a scrape without exactly this.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

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
pub(super) fn answer(request: &Request, watch: &Watch) -> Answer {
    let page = route(&request.path);
    if page == Page::Other {
        return text(page, Code::NotFound, "not found\n");
    }
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        return text(page, Code::MethodNotAllowed, "method not allowed\n");
    }
    // The closures are only read from here, and a half-made page is thrown away.
    catch_unwind(AssertUnwindSafe(|| make(page, request, watch)))
        .unwrap_or_else(|_| text(page, Code::Failed, "this page could not be made\n"))
}

/// Whether one answer is the answer to both.
pub(super) fn ask_the_same(one: &Request, other: &Request) -> bool {
    let shares_page = one.method == other.method && one.path == other.path;
    let reads_more = route(&one.path) == Page::Connections;
    shares_page && (!reads_more || (&one.query, &one.host) == (&other.query, &other.host))
}

/// Whether the page may take long to make, because it waits for others.
pub(super) fn is_slow(request: &Request) -> bool {
    route(&request.path) == Page::Connections
}

fn route(path: &str) -> Page {
    match path {
        "/metrics" => Page::Metrics,
        "/healthz" => Page::Healthz,
        "/readyz" => Page::Readyz,
        "/connections" => Page::Connections,
        "/" => Page::Index,
        _ => Page::Other,
    }
}

fn make(page: Page, request: &Request, watch: &Watch) -> Answer {
    match page {
        Page::Metrics => Answer {
            scrape: Scrape::new(page, Code::Ok),
            content_type: EXPOSITION,
            headers: Vec::new(),
            body: (watch.metrics)(),
        },
        Page::Healthz => text(page, Code::Ok, "ok\n"),
        Page::Readyz => match (watch.ready)() {
            Ok(()) => text(page, Code::Ok, "ready\n"),
            Err(why) => text(page, Code::NotReady, &format!("{why}\n")),
        },
        Page::Connections => connections(request, watch),
        Page::Index => Answer {
            scrape: Scrape::new(page, Code::Ok),
            content_type: HTML,
            headers: status::headers(),
            body: status::page(watch.access.closed.as_deref()).into_bytes(),
        },
        Page::Other => text(page, Code::NotFound, "not found\n"),
    }
}

/// It shows whom the server talks to: not to just anybody, and to no page from elsewhere.
fn connections(request: &Request, watch: &Watch) -> Answer {
    let page = Page::Connections;
    let made = match watch.access.refusal(request.host.as_deref()) {
        Some(refusal) => text(page, Code::Forbidden, &refusal),
        None => match Query::parse(&request.query) {
            Err(flaw) => text(page, Code::BadRequest, &flaw.text()),
            Ok(query) => Answer {
                scrape: Scrape::new(page, Code::Ok),
                content_type: JSON,
                headers: Vec::new(),
                body: (watch.connections)(query),
            },
        },
    };
    Answer { headers: vec![("Cross-Origin-Resource-Policy", "same-origin".to_owned())], ..made }
}

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
        let ready = move || if ready { Ok(()) } else { Err("draining".to_owned()) };
        Watch { ready: Box::new(ready), ..Watch::of(|| b"up 1\n".to_vec()) }
    }

    fn request(method: &str, target: &str, host: Option<&str>) -> Request {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            host: host.map(str::to_owned),
        }
    }

    fn get(path: &str, watch: &Watch) -> Answer {
        answer(&request("GET", path, None), watch)
    }

    #[track_caller]
    fn check(method: &str, path: &str, ready: bool, code: u16, body: &str) {
        let answer = answer(&request(method, path, Some("x")), &watch(ready));
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
            check(method, "/", true, 200, &status::page(None));
            check(method, "/metrics/", true, 404, "not found\n");
        }
    }

    #[test]
    fn another_method_is_not_allowed_and_an_unknown_path_is_not_found_by_any() {
        for path in ["/metrics", "/healthz", "/readyz", "/connections", "/"] {
            check("POST", path, true, 405, "method not allowed\n");
        }
        check("POST", "/x", true, 404, "not found\n");
        check("OPTIONS", "*", true, 404, "not found\n");
    }

    #[test]
    fn a_panic_in_the_watch_costs_one_answer() {
        let mut watch = watch(true);
        watch.metrics = Box::new(|| std::panic::resume_unwind(Box::new("no page")));
        watch.connections = Box::new(|_| std::panic::resume_unwind(Box::new("no page")));
        assert_eq!(get("/metrics", &watch).scrape.code, Code::Failed);
        assert_eq!(get("/connections", &watch).scrape.code, Code::Failed);
        assert_eq!(get("/healthz", &watch).scrape.code, Code::Ok);
    }

    #[test]
    fn the_content_type_of_the_exposition_is_the_one_prometheus_takes() {
        assert_eq!(
            get("/metrics", &watch(true)).content_type,
            "text/plain; version=0.0.4; charset=utf-8"
        );
    }

    #[test]
    fn connections_are_shown_as_asked_and_to_nobody_else() {
        let mut watch = watch(true);
        watch.connections = Box::new(|query| format!("{query:?}").into_bytes());
        let check = |watch: &Watch, target, host, code, content| {
            let answer = answer(&request("GET", target, host), watch);
            assert!(Scrape::ALL.contains(&answer.scrape), "{:?} is not listed", answer.scrape);
            assert_eq!(answer.scrape, Scrape::new(Page::Connections, code));
            let policy = ("Cross-Origin-Resource-Policy", "same-origin".to_owned());
            assert_eq!(answer.headers, [policy]);
            let body = String::from_utf8(answer.body).unwrap();
            assert!(body.contains(content), "{body}");
        };
        check(&watch, "/connections", None, Code::Ok, "limit: 100");
        check(&watch, "/connections?limit=7", Some("localhost"), Code::Ok, "limit: 7");
        check(&watch, "/connections?limit=0", None, Code::BadRequest, "from 1 to 1000");
        check(&watch, "/connections?limit=0", Some("a.b"), Code::Forbidden, "allowed_hosts");
        watch.access.closed = Some("closed".to_owned());
        check(&watch, "/connections", None, Code::Forbidden, "closed\n");
    }

    #[test]
    fn only_what_a_page_reads_makes_two_requests_differ() {
        #[track_caller]
        fn check(one: &str, other: &str, expected: bool) {
            let [one, other] = [one, other].map(|target| request("GET", target, Some("a")));
            assert_eq!(ask_the_same(&one, &other), expected);
            let elsewhere = Request { host: None, ..other };
            assert_eq!(ask_the_same(&one, &elsewhere), expected && !is_slow(&one));
        }
        check("/metrics?a", "/metrics?b", true);
        check("/metrics", "/healthz", false);
        check("/connections?limit=1", "/connections?limit=1", true);
        check("/connections?limit=1", "/connections?limit=2", false);
        let (get, head) = (request("GET", "/", None), request("HEAD", "/", None));
        assert!(!ask_the_same(&get, &head));
    }
}
