//! XML, written by hand and read by a pull parser: the few elements that stores exchange.

use quick_xml::Reader;
use quick_xml::events::Event;

/// Text within an element.
pub(crate) fn escape(text: &str) -> String {
    quick_xml::escape::escape(text).into_owned()
}

/// `<name>text</name>`.
pub(crate) fn element(name: &str, text: &str) -> String {
    format!("<{name}>{}</{name}>", escape(text))
}

/// `<?xml…?><name>inner</name>`, in S3's name space.
pub(crate) fn document(name: &str, inner: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{name} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{inner}</{name}>"
    )
}

/// The leaves of a document in order: name and text. None when it is not XML.
pub(crate) fn leaves(text: &[u8]) -> Option<Vec<(String, String)>> {
    let mut reader = Reader::from_reader(text);
    let mut leaves = Vec::new();
    let mut open: Option<(String, String)> = None;
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => {
                let name = String::from_utf8_lossy(start.local_name().as_ref()).into_owned();
                open = Some((name, String::new()));
            }
            Event::Text(text) => {
                if let Some((_, value)) = &mut open {
                    value.push_str(&text.decode().ok()?);
                }
            }
            Event::GeneralRef(reference) => {
                if let Some((_, value)) = &mut open {
                    let name = reference.decode().ok()?;
                    value.push_str(&quick_xml::escape::unescape(&format!("&{name};")).ok()?);
                }
            }
            Event::End(_) => leaves.extend(open.take()),
            Event::Eof => return Some(leaves),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_come_in_order_and_unescaped() {
        let text =
            b"<?xml version=\"1.0\"?><C xmlns=\"x\"><Part><N>1</N><ETag>&quot;a&#38;b&quot;</ETag></Part>\n<E/></C>";
        let found = leaves(text).unwrap();
        let expected = [("N", "1"), ("ETag", "\"a&b\"")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(leaves(b"<a><b></a>").is_none());
        assert_eq!(element("K", "a<b"), "<K>a&lt;b</K>");
    }
}
