//! A mail as RFC 5322 text. Headers and body are encoded here; caller data never meets a template.

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};

/// A plain-text mail. The provider adds `From`, `Date` and `Message-ID`.
pub(super) struct Mail<'a> {
    pub(super) to: Vec<&'a str>,
    pub(super) cc: Vec<&'a str>,
    pub(super) bcc: Vec<&'a str>,
    pub(super) subject: &'a str,
    pub(super) body: &'a str,
}

impl Mail<'_> {
    /// Whether nothing in it can end a header early. The arguments' formats promise it; this is the last look.
    pub(super) fn fits_headers(&self) -> bool {
        let addresses = self.to.iter().chain(&self.cc).chain(&self.bcc);
        let plain = |text: &&str| {
            text.bytes().all(|byte| matches!(byte, 0x21..=0x7e)) && !text.contains([',', ';', '<', '>'])
        };
        !self.to.is_empty()
            && addresses.copied().all(|text| plain(&text))
            && !self.subject.chars().any(char::is_control)
    }
}

/// The message, base64url without padding, as Gmail's `raw` member wants it.
pub(super) fn raw(mail: &Mail<'_>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(message(mail))
}

fn message(mail: &Mail<'_>) -> String {
    let mut out = String::new();
    addresses("To", &mail.to, &mut out);
    addresses("Cc", &mail.cc, &mut out);
    addresses("Bcc", &mail.bcc, &mut out);
    out.push_str("Subject: ");
    out.push_str(&subject(mail.subject));
    out.push_str("\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n");
    out.push_str("Content-Transfer-Encoding: base64\r\n\r\n");
    // RFC 2046 §4.1.1: line breaks of text are CRLF, before the transfer encoding.
    let body = mail
        .body
        .replace("\r\n", "\n")
        .replace('\r', "\n")
        .replace('\n', "\r\n");
    wrap(&BASE64_STANDARD.encode(body), &mut out);
    out
}

// RFC 5322 §2.2.3: one address a line, folded, so that no line passes 998 octets.
fn addresses(name: &str, list: &[&str], out: &mut String) {
    if list.is_empty() {
        return;
    }
    out.push_str(name);
    out.push_str(": ");
    out.push_str(&list.join(",\r\n "));
    out.push_str("\r\n");
}

// RFC 2047 §2: an encoded word has at most 75 octets; 45 octets of text make 60 of base64 and 12 around them. §5:
// whole characters only.
fn subject(text: &str) -> String {
    let plain =
        text.len() <= 60 && text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) && !text.contains("=?");
    if plain && text.trim() == text {
        return text.to_owned();
    }
    let mut words = vec![String::new()];
    for character in text.chars() {
        match words.last_mut() {
            Some(word) if word.len() + character.len_utf8() <= 45 => word.push(character),
            _ => words.push(character.to_string()),
        }
    }
    words
        .iter()
        .map(|word| format!("=?UTF-8?B?{}?=", BASE64_STANDARD.encode(word)))
        .collect::<Vec<_>>()
        .join("\r\n ")
}

// RFC 2045 §6.8: lines of at most 76 characters.
fn wrap(base64: &str, out: &mut String) {
    for (index, character) in base64.chars().enumerate() {
        if index > 0 && index % 76 == 0 {
            out.push_str("\r\n");
        }
        out.push(character);
    }
    out.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail<'a>(to: &[&'a str], subject: &'a str, body: &'a str) -> Mail<'a> {
        Mail {
            to: to.to_vec(),
            cc: vec![],
            bcc: vec![],
            subject,
            body,
        }
    }

    #[test]
    fn a_plain_mail_reads_as_rfc_5322() {
        let text = message(&mail(
            &["ada@acme.example", "b@xn--bcher-kva.example"],
            "Hello",
            "Hi\nAda",
        ));
        assert_eq!(
            text,
            "To: ada@acme.example,\r\n b@xn--bcher-kva.example\r\nSubject: Hello\r\nMIME-Version: 1.0\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nSGkNCkFkYQ==\r\n"
        );
    }

    #[test]
    fn subjects_outside_ascii_or_looking_encoded_become_encoded_words() {
        assert_eq!(subject("Grüße"), "=?UTF-8?B?R3LDvMOfZQ==?=");
        assert_eq!(
            subject("=?UTF-8?B?eA==?="),
            format!("=?UTF-8?B?{}?=", BASE64_STANDARD.encode("=?UTF-8?B?eA==?="))
        );
        assert_eq!(subject(" padded "), "=?UTF-8?B?IHBhZGRlZCA=?=");
        let long = subject(&"你好".repeat(100));
        for line in long.split("\r\n ") {
            assert!(
                line.len() <= 75 && line.starts_with("=?UTF-8?B?") && line.ends_with("?="),
                "{line}"
            );
            let word = line.trim_start_matches("=?UTF-8?B?").trim_end_matches("?=");
            assert!(String::from_utf8(BASE64_STANDARD.decode(word).unwrap()).is_ok());
        }
    }

    #[test]
    fn no_body_line_is_longer_than_76_and_none_is_a_header() {
        let text = message(&mail(
            &["a@b.example"],
            "s",
            &"Bcc: evil@x.example\r\n\r\n.\r\n".repeat(50),
        ));
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(!head.contains("evil") && !body.contains("evil"));
        assert!(body.lines().all(|line| line.len() <= 76));
    }

    #[test]
    fn what_could_end_a_header_does_not_fit() {
        assert!(mail(&["a@b.example"], "s", "b").fits_headers());
        for (to, subject) in [
            ("a@b.example\r\nBcc: c@d.example", "s"),
            ("a@b.example, c@d.example", "s"),
            ("A <a@b.example>", "s"),
            ("ä@b.example", "s"),
            ("a@b.example", "s\r\nBcc: c@d.example"),
            ("a@b.example", "s\nx"),
            ("a@b.example", "s\u{85}x"),
        ] {
            assert!(!mail(&[to], subject, "b").fits_headers(), "{to:?} {subject:?}");
        }
        assert!(!mail(&[], "s", "b").fits_headers());
    }
}
