//! The status page: one file of HTML with its style and its script, put together from what stands
//! in `status/`. All that it shows it asks of this port; nothing on it comes from elsewhere.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("status/page.css");

/// One module: what its files declare is seen by those below, and by nothing else in the browser.
const SCRIPT: &str = concat!(
    include_str!("status/parse.js"),
    include_str!("status/rates.js"),
    include_str!("status/format.js"),
    include_str!("status/figures.js"),
    include_str!("status/findings.js"),
    include_str!("status/past.js"),
    include_str!("status/charts.js"),
    include_str!("status/tables.js"),
    include_str!("status/page.js"),
);

/// The page, the same for everybody; `closed` is why `/connections` is shown to nobody, if so.
pub(super) fn page(closed: Option<&str>) -> String {
    let Some(why) = closed else { return PAGE.clone() };
    let why = why.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    PAGE.replacen("<body>", &format!("<body data-closed=\"{why}\">"), 1)
}

static PAGE: LazyLock<String> = LazyLock::new(|| {
    let body = include_str!("status/page.html");
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>talkback</title>\n<link rel=\"icon\" href=\"data:,\">\n\
         <style>{STYLE}</style>\n</head>\n<body>\n{body}\
         <script type=\"module\">{SCRIPT}</script>\n</body>\n</html>\n"
    )
});

/// What a browser lets the page do: run this script, apply this style, ask this port. Text cannot
/// become markup or code, and no other page can frame it.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; connect-src 'self'; img-src data:; script-src 'sha256-{}'; \
         style-src 'sha256-{}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        digest(SCRIPT),
        digest(STYLE)
    )
});

/// How a policy names a text that may run.
fn digest(text: &str) -> String {
    STANDARD.encode(Sha256::digest(text))
}

/// The header fields of the page beyond those of every answer.
pub(super) fn headers() -> Vec<(&'static str, String)> {
    vec![
        ("Content-Security-Policy", POLICY.clone()),
        ("X-Frame-Options", "DENY".to_owned()),
        ("Referrer-Policy", "no-referrer".to_owned()),
        ("Cross-Origin-Resource-Policy", "same-origin".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_brings_everything_and_names_no_other_place() {
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            // The name of SVG's elements is a name, and nothing is fetched from it.
            let page = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(outside), "{outside}");
        }
        // Neither may end before the page says so.
        for part in [STYLE, SCRIPT] {
            assert!(!part.contains("</") && !part.contains("<!--"));
        }
    }

    #[test]
    fn why_connections_are_shown_to_nobody_stands_on_the_page_and_breaks_out_of_nothing() {
        assert!(page(None).contains("\n<body>\n"));
        let told = page(Some("a = \"b\" & <c>"));
        assert!(told.contains("<body data-closed=\"a = &quot;b&quot; &amp; &lt;c>\">\n"));
    }

    #[test]
    fn a_digest_is_sha_256_in_base64() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(digest("abc"), "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
    }

    #[test]
    fn the_script_makes_no_markup_of_text() {
        for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!SCRIPT.contains(sink), "{sink}");
        }
    }
}
