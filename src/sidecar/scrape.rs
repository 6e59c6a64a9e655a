//! The closed sets of label values: which page was answered with which code, and why a connection
//! got none. Both are complete by construction, so that every series can stand at 0 from the start.

/// The page that a request asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Page {
    /// `/metrics`
    Metrics,
    /// `/healthz`
    Healthz,
    /// `/readyz`
    Readyz,
    /// `/connections`
    Connections,
    /// `/`
    Index,
    /// Any other path. One label for all of them, or a scanner could create series without end.
    Other,
}

impl Page {
    /// The value of the `path` label.
    pub fn label(self) -> &'static str {
        match self {
            Page::Metrics => "/metrics",
            Page::Healthz => "/healthz",
            Page::Readyz => "/readyz",
            Page::Connections => "/connections",
            Page::Index => "/",
            Page::Other => "other",
        }
    }
}

/// The status that a page was answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// 200
    Ok,
    /// 400: a query that the page does not know
    BadRequest,
    /// 403: not for this client
    Forbidden,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 500: what makes the page panicked
    Failed,
    /// 503: draining
    NotReady,
}

impl Code {
    /// The status code of HTTP.
    pub fn status(self) -> u16 {
        match self {
            Code::Ok => 200,
            Code::BadRequest => 400,
            Code::Forbidden => 403,
            Code::NotFound => 404,
            Code::MethodNotAllowed => 405,
            Code::Failed => 500,
            Code::NotReady => 503,
        }
    }

    /// The value of the `code` label.
    pub fn label(self) -> &'static str {
        match self {
            Code::Ok => "200",
            Code::BadRequest => "400",
            Code::Forbidden => "403",
            Code::NotFound => "404",
            Code::MethodNotAllowed => "405",
            Code::Failed => "500",
            Code::NotReady => "503",
        }
    }
}

/// One answered request: a page and the code it was answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scrape {
    /// What was asked for.
    pub page: Page,
    /// What it got.
    pub code: Code,
}

impl Scrape {
    /// Every combination that can occur.
    pub const ALL: [Scrape; 17] = [
        Scrape::new(Page::Metrics, Code::Ok),
        Scrape::new(Page::Metrics, Code::MethodNotAllowed),
        Scrape::new(Page::Metrics, Code::Failed),
        Scrape::new(Page::Healthz, Code::Ok),
        Scrape::new(Page::Healthz, Code::MethodNotAllowed),
        Scrape::new(Page::Readyz, Code::Ok),
        Scrape::new(Page::Readyz, Code::MethodNotAllowed),
        Scrape::new(Page::Readyz, Code::Failed),
        Scrape::new(Page::Readyz, Code::NotReady),
        Scrape::new(Page::Connections, Code::Ok),
        Scrape::new(Page::Connections, Code::BadRequest),
        Scrape::new(Page::Connections, Code::Forbidden),
        Scrape::new(Page::Connections, Code::MethodNotAllowed),
        Scrape::new(Page::Connections, Code::Failed),
        Scrape::new(Page::Index, Code::Ok),
        Scrape::new(Page::Index, Code::MethodNotAllowed),
        Scrape::new(Page::Other, Code::NotFound),
    ];

    pub(super) const fn new(page: Page, code: Code) -> Scrape {
        Scrape { page, code }
    }
}

/// Why a connection was turned away, or cut, before it had its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// All places were taken, and this connection had not yet sent its request when another came.
    OverCapacity,
    /// The request head is longer than the limit.
    HeadTooLarge,
    /// The request head was not whole in time.
    HeadTimeout,
    /// Not a request of HTTP/1.0 or 1.1.
    Malformed,
    /// The client ended its side in the middle of the request head.
    Incomplete,
    /// A GET or HEAD that brings a body.
    Body,
    /// The page was not made in time.
    Unavailable,
    /// The client did not take its answer in time.
    SlowReader,
}

impl Rejection {
    /// Every reason.
    pub const ALL: [Rejection; 8] = [
        Rejection::OverCapacity,
        Rejection::HeadTooLarge,
        Rejection::HeadTimeout,
        Rejection::Malformed,
        Rejection::Incomplete,
        Rejection::Body,
        Rejection::Unavailable,
        Rejection::SlowReader,
    ];

    /// The value of the `reason` label.
    pub fn label(self) -> &'static str {
        match self {
            Rejection::OverCapacity => "over_capacity",
            Rejection::HeadTooLarge => "head_too_large",
            Rejection::HeadTimeout => "head_timeout",
            Rejection::Malformed => "malformed",
            Rejection::Incomplete => "incomplete",
            Rejection::Body => "body",
            Rejection::Unavailable => "unavailable",
            Rejection::SlowReader => "slow_reader",
        }
    }

    /// The whole answer that tells the client. It is short enough for any empty send buffer.
    pub(super) fn answer(self) -> Vec<u8> {
        let status = match self {
            Rejection::OverCapacity | Rejection::Unavailable => "503 Service Unavailable",
            Rejection::HeadTooLarge => "431 Request Header Fields Too Large",
            Rejection::HeadTimeout | Rejection::SlowReader => "408 Request Timeout",
            Rejection::Malformed | Rejection::Incomplete => "400 Bad Request",
            Rejection::Body => "413 Content Too Large",
        };
        let text = self.label();
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nServer: talkback\r\n\
             Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n\
             Content-Length: {}\r\n\r\n{text}\n",
            text.len() + 1
        )
        .into_bytes()
    }
}
