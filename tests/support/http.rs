//! One HTTP answer, and what the contract says about every answer.

use super::Value;
use reqwest::header::HeaderMap;

/// An HTTP answer with its body read.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Reads `response` to its end.
    ///
    /// # Errors
    /// When the connection breaks before that.
    pub async fn read(response: reqwest::Response) -> reqwest::Result<Self> {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = response.text().await?;
        Ok(Self { status, headers, body })
    }

    /// A header field's value; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// The JSON body of an answer that must have this status (2xx: `application/json`).
    ///
    /// # Panics
    /// When the status or the content type is another.
    #[track_caller]
    pub fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        let kind = self.header("content-type");
        assert!(kind.starts_with("application/json"), "content type {kind:?}: {self:?}");
        self.json()
    }

    /// The body of an error: `application/problem+json` with this status and this stable `code` (clauses H1.1, H1.2).
    ///
    /// # Panics
    /// When it is anything else.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        let body = self.any_problem(status);
        assert_eq!(body["code"], code, "{self:?}");
        body
    }

    /// The body of an error whose `code` the contract does not name.
    ///
    /// # Panics
    /// When the status is another, or it is no problem document with a code.
    #[track_caller]
    pub fn any_problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        let kind = self.header("content-type");
        assert!(
            kind.starts_with("application/problem+json"),
            "content type {kind:?}: {self:?}"
        );
        let body = self.json();
        assert!(body["code"].as_str().is_some_and(|code| !code.is_empty()), "{self:?}");
        if let Some(in_body) = body["status"].as_u64() {
            assert_eq!(in_body, u64::from(status), "RFC 9457: `status` repeats the status line");
        }
        body
    }
}
