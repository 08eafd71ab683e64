//! Policies as JSON: what is taken is written and read again as the same, and decides as a plain reading of the very JSON does.

#![no_main]

use carrack_domain::access::{Action, Identity, Role};
use carrack_domain::policy::{Circumstances, Policy, Span};
use carrack_domain::Timestamp;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const ACTIONS: [(&str, Action); 6] = [
    ("read", Action::Read),
    ("write", Action::Write),
    ("delete", Action::Delete),
    ("list", Action::List),
    ("archive", Action::Archive),
    ("share", Action::Share),
];

/// Whether a rule without conditions is about this user and action.
fn concerns(rule: &Value, user: &str, role: &str, action: &str) -> bool {
    let named = |list: &Value, wanted: &[&str]| {
        list.as_array().is_some_and(|all| all.iter().any(|one| wanted.iter().any(|wanted| one == wanted)))
    };
    let (user, role) = (format!("user:{user}"), format!("role:{role}"));
    named(&rule["actions"], &[action, "*"]) && named(&rule["to"], &["everyone", &user, &role])
}

fn allows(rules: &[Value], user: &str, role: &str, action: &str, key: &str) -> bool {
    let about = |effect: &str| {
        rules.iter().any(|rule| {
            let prefix = rule["prefix"].as_str().unwrap_or("");
            rule["effect"] == effect && concerns(rule, user, role, action) && key.starts_with(prefix)
        })
    };
    about("allow") && !about("deny")
}

fuzz_target!(|data: &[u8]| {
    let Ok(policy) = serde_json::from_slice::<Policy>(data) else { return };
    if policy.check().is_err() {
        return;
    }
    let written = serde_json::to_vec(&policy).unwrap();
    let again: Policy = serde_json::from_slice(&written).unwrap();
    assert_eq!(again, policy);
    let value: Value = serde_json::from_slice(data).unwrap();
    let Some(rules) = value["rules"].as_array() else { return };
    if rules.iter().any(|rule| rule.get("when").is_some()) {
        return; // Conditions have a reference of their own, in the tests of the policy.
    }
    let here = Circumstances { address: None, tls: false, now: Timestamp::from_millis(0) };
    for (user, role, text) in [("a", Role::User, "user"), ("b", Role::Admin, "admin"), ("guest", Role::Guest, "guest")] {
        let who = Identity::new(user, role);
        for (name, action) in ACTIONS {
            for key in ["a", "a/b", "b/a/c", "ä"] {
                let found = policy.allows(&who, &here, action, Span::Key(key));
                assert_eq!(found, allows(rules, user, text, name, key), "{user} {name} {key}");
            }
        }
    }
});
