//! The open internet: clients that are slow, rude or hostile.

mod heads;
mod http2;
mod slow;

/// The page on security names tests; these exist.
#[test]
fn every_test_that_is_promised_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("../../docs/security.md")).unwrap();
    let names: Vec<&str> = page.split('`').filter(|word| word.matches("::").count() == 2).collect();
    assert!(names.len() >= 35, "{}", names.len());
    for name in names {
        let (module, function) = name.rsplit_once("::").unwrap();
        let file = root.join("tests/it").join(module.replace("::", "/") + ".rs");
        let source = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(source.contains(&format!("fn {function}(")), "{name} is not there");
    }
}
