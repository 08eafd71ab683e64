//! Policies of buckets: which principal may do what below which prefix, and under which circumstances.
//!
//! [`Policy::allows`] is one pure function: default deny, deny wins, and no rule is widened by one for a shorter prefix.

use crate::access::{Action, Identity, Role};
use crate::clock::Timestamp;
use crate::key::KEY_BYTES_MAX;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The most rules of a policy: each is looked at for every request to its bucket.
pub const RULES_MAX: usize = 500;
/// The most names or address ranges of one rule.
const NAMES_MAX: usize = 500;
/// The longest name of a user.
pub const SUBJECT_BYTES_MAX: usize = 256;

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It permits, unless another rule denies.
    Allow,
    /// It forbids, whatever other rules say.
    Deny,
}

/// The rules of a bucket. An empty one lets in administrators only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Whether it permits or forbids.
    pub effect: Effect,
    /// What.
    pub actions: Actions,
    /// Below which prefix; empty is the whole bucket.
    #[serde(default)]
    pub prefix: String,
    /// To whom.
    pub to: Vec<Party>,
    /// Under which circumstances; absent is always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Conditions>,
}

/// Actions that policies know, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Actions(u8);

/// The actions that policies know, by name.
const NAMED: [(&str, Action); 6] = [
    ("read", Action::Read),
    ("write", Action::Write),
    ("delete", Action::Delete),
    ("list", Action::List),
    ("archive", Action::Archive),
    ("share", Action::Share),
];

impl Actions {
    /// Every action that policies know.
    pub const ALL: Actions = Actions(0b11_1111);

    /// These.
    pub fn of(actions: &[Action]) -> Actions {
        Actions(actions.iter().fold(0, |set, action| set | Actions::bit(*action)))
    }

    fn bit(action: Action) -> u8 {
        NAMED.iter().position(|(_, named)| *named == action).map_or(0, |at| 1 << at)
    }

    /// Whether the action is one of these; never one that policies do not know.
    pub fn contains(self, action: Action) -> bool {
        self.0 & Actions::bit(action) != 0
    }

    fn intersects(self, other: Actions) -> bool {
        self.0 & other.0 != 0
    }

    fn each(self) -> impl Iterator<Item = Actions> {
        (0..NAMED.len()).map(|at| Actions(1 << at)).filter(move |one| self.intersects(*one))
    }
}

impl TryFrom<Vec<String>> for Actions {
    type Error = String;

    fn try_from(names: Vec<String>) -> Result<Actions, String> {
        let mut set = Actions(0);
        for name in &names {
            if name == "*" {
                set = Actions::ALL;
                continue;
            }
            let Some((_, action)) = NAMED.iter().find(|(known, _)| known == name) else {
                let known = NAMED.map(|(name, _)| name).join(", ");
                return Err(format!("'{}' is no action: use {known} or *", name.escape_default()));
            };
            set.0 |= Actions::bit(*action);
        }
        if set.0 == 0 { Err("a rule needs at least one action".to_owned()) } else { Ok(set) }
    }
}

impl From<Actions> for Vec<String> {
    fn from(set: Actions) -> Vec<String> {
        if set == Actions::ALL {
            return vec!["*".to_owned()];
        }
        NAMED.iter().filter(|(_, action)| set.contains(*action)).map(|(name, _)| (*name).to_owned()).collect()
    }
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Party {
    /// Everybody, guests too.
    Everyone,
    /// Everybody with this role.
    Role(Role),
    /// One user by name.
    User(String),
}

impl Party {
    fn is(&self, who: &Identity) -> bool {
        match self {
            Party::Everyone => true,
            Party::Role(role) => *role == who.role,
            // A guest has no name that could be one of a user.
            Party::User(name) => who.role != Role::Guest && *name == who.subject,
        }
    }
}

impl TryFrom<String> for Party {
    type Error = String;

    fn try_from(text: String) -> Result<Party, String> {
        if text == "everyone" {
            return Ok(Party::Everyone);
        }
        if let Some(role) = text.strip_prefix("role:").and_then(Role::parse) {
            return Ok(Party::Role(role));
        }
        match text.strip_prefix("user:") {
            Some(name) if !name.is_empty() && name.len() <= SUBJECT_BYTES_MAX => {
                Ok(Party::User(name.to_owned()))
            }
            _ => Err(format!(
                "'{}' is nobody: use everyone, role:guest, role:user, role:admin or user:NAME",
                text.escape_default()
            )),
        }
    }
}

impl From<Party> for String {
    fn from(party: Party) -> String {
        match party {
            Party::Everyone => "everyone".to_owned(),
            Party::Role(role) => format!("role:{}", role.as_str()),
            Party::User(name) => format!("user:{name}"),
        }
    }
}

/// What must hold of a request for a rule to be about it; all that is named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// The caller's address is in one of these ranges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<Vec<AddressRange>>,
    /// The request came over TLS, or did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// Not before this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Timestamp>,
    /// Before this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Timestamp>,
}

impl Conditions {
    fn hold(&self, of: &Circumstances) -> bool {
        self.ip.as_ref().is_none_or(|ranges| {
            of.address.is_some_and(|address| ranges.iter().any(|range| range.contains(address)))
        }) && self.tls.is_none_or(|tls| tls == of.tls)
            && self.after.is_none_or(|after| of.now >= after)
            && self.before.is_none_or(|before| of.now < before)
    }
}

/// Addresses that begin with the same bits: `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange(IpNet);

impl AddressRange {
    /// Reads `10.0.0.0/8`, `2001:db8::/32` or an address by itself.
    pub fn parse(text: &str) -> Option<AddressRange> {
        let range = text.parse::<IpNet>().ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)))?;
        Some(AddressRange(range.trunc()))
    }

    /// Whether an address is in it. An IPv4 address is the same in its IPv6 form (RFC 4291 §2.5.5.2).
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl TryFrom<String> for AddressRange {
    type Error = String;

    fn try_from(text: String) -> Result<AddressRange, String> {
        AddressRange::parse(&text).ok_or_else(|| {
            format!("'{}' is no range of addresses: use one such as 10.0.0.0/8", text.escape_default())
        })
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> String {
        range.0.to_string()
    }
}

/// What is known of a request besides who makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Circumstances {
    /// Where it comes from, if that is known.
    pub address: Option<IpAddr>,
    /// Whether it came over TLS.
    pub tls: bool,
    /// When it came.
    pub now: Timestamp,
}

/// What of a bucket a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span<'a> {
    /// One key.
    Key(&'a str),
    /// Every key that begins with this.
    Below(&'a str),
}

impl Span<'_> {
    /// Whether the whole span lies below `prefix`.
    fn within(self, prefix: &str) -> bool {
        let (Span::Key(text) | Span::Below(text)) = self;
        text.starts_with(prefix)
    }

    /// Whether any of the span lies below `prefix`.
    fn touches(self, prefix: &str) -> bool {
        match self {
            Span::Key(key) => key.starts_with(prefix),
            Span::Below(beginning) => beginning.starts_with(prefix) || prefix.starts_with(beginning),
        }
    }
}

impl Policy {
    /// A policy of these rules; the sentence says which bound is broken.
    pub fn new(rules: Vec<Rule>) -> Result<Policy, String> {
        let policy = Policy { rules };
        policy.check()?;
        Ok(policy)
    }

    /// Checks the bounds that the shape alone does not hold.
    pub fn check(&self) -> Result<(), String> {
        if self.rules.len() > RULES_MAX {
            return Err(format!("a policy has at most {RULES_MAX} rules, this one {}", self.rules.len()));
        }
        for rule in &self.rules {
            let ranges = rule.when.as_ref().and_then(|when| when.ip.as_ref()).map_or(0, Vec::len);
            if rule.to.is_empty() {
                return Err("a rule is to somebody: 'to' is empty".to_owned());
            }
            if rule.to.len() > NAMES_MAX || ranges > NAMES_MAX {
                return Err(format!("a rule has at most {NAMES_MAX} names and address ranges"));
            }
            if rule.prefix.len() > KEY_BYTES_MAX || rule.prefix.chars().any(char::is_control) {
                return Err(format!("a prefix has at most {KEY_BYTES_MAX} bytes and no control character"));
            }
        }
        Ok(())
    }

    /// The rules.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether `who` may do `action` to all of `span`: some rule that holds of the whole span allows it, and none that
    /// holds of any of it denies it.
    pub fn allows(&self, who: &Identity, of: &Circumstances, action: Action, span: Span<'_>) -> bool {
        let mut allowed = false;
        for rule in self.rules.iter().filter(|rule| rule.actions.contains(action) && rule.is_about(who, of)) {
            match rule.effect {
                Effect::Allow => allowed |= span.within(&rule.prefix),
                Effect::Deny if span.touches(&rule.prefix) => return false,
                Effect::Deny => {}
            }
        }
        allowed
    }

    /// Whether `who` may do anything at all in the bucket. Who may not is not told that it exists.
    pub fn reveals(&self, who: &Identity, of: &Circumstances) -> bool {
        let here =
            |effect| self.rules.iter().filter(move |rule| rule.effect == effect && rule.is_about(who, of));
        here(Effect::Allow).any(|allow| {
            allow.actions.each().any(|action| {
                !here(Effect::Deny)
                    .any(|deny| deny.actions.intersects(action) && allow.prefix.starts_with(&deny.prefix))
            })
        })
    }

    /// Whether any rule lets guests do something.
    pub fn admits_guests(&self) -> bool {
        self.rules.iter().any(|rule| {
            rule.effect == Effect::Allow
                && rule.to.iter().any(|party| matches!(party, Party::Everyone | Party::Role(Role::Guest)))
        })
    }
}

impl Rule {
    fn is_about(&self, who: &Identity, of: &Circumstances) -> bool {
        self.to.iter().any(|party| party.is(who)) && self.when.as_ref().is_none_or(|when| when.hold(of))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn who(subject: &str, role: Role) -> Identity {
        Identity::new(subject, role)
    }

    fn at(address: &str, tls: bool, now: i64) -> Circumstances {
        Circumstances { address: address.parse().ok(), tls, now: Timestamp::from_millis(now) }
    }

    fn rule(effect: Effect, actions: Actions, prefix: &str, to: Party) -> Rule {
        Rule { effect, actions, prefix: prefix.to_owned(), to: vec![to], when: None }
    }

    #[test]
    fn a_narrow_rule_is_not_widened_by_a_broad_one() {
        let read = Actions::of(&[Action::Read]);
        let policy = Policy::new(vec![
            rule(Effect::Allow, Actions::ALL, "dir/", Party::Everyone),
            rule(Effect::Deny, Actions::of(&[Action::Write]), "dir/sub/", Party::Everyone),
            rule(Effect::Allow, read, "", Party::User("alice".into())),
        ])
        .unwrap();
        let (alice, here) = (who("alice", Role::User), at("", false, 0));
        assert!(policy.allows(&alice, &here, Action::Write, Span::Key("dir/a")));
        assert!(!policy.allows(&alice, &here, Action::Write, Span::Key("dir/sub/a")));
        assert!(policy.allows(&alice, &here, Action::Read, Span::Key("dir/sub/a")));
        assert!(policy.allows(&alice, &here, Action::Read, Span::Key("other")));
        assert!(!policy.allows(&alice, &here, Action::Write, Span::Below("dir/")), "a part of it is denied");
        assert!(policy.allows(&alice, &here, Action::Write, Span::Below("dir/b")));
        assert!(!policy.allows(&alice, &here, Action::List, Span::Below("")), "only dir/ is allowed");
        assert!(!policy.allows(&alice, &here, Action::Admin, Span::Key("dir/a")), "no policy grants that");
    }

    #[test]
    fn conditions() {
        let mut allowed = rule(Effect::Allow, Actions::ALL, "", Party::Everyone);
        let conditions = |ip: &str, tls, after, before| {
            let ip = (!ip.is_empty()).then(|| vec![AddressRange::parse(ip).unwrap()]);
            Some(Conditions {
                ip,
                tls,
                after: Option::map(after, Timestamp::from_millis),
                before: Option::map(before, Timestamp::from_millis),
            })
        };
        let mut of = |when, here: Circumstances| {
            allowed.when = when;
            let policy = Policy::new(vec![allowed.clone()]).unwrap();
            policy.allows(&who("guest", Role::Guest), &here, Action::Read, Span::Key("k"))
        };
        let private = || conditions("10.0.0.0/8", None, None, None);
        assert!(of(private(), at("10.1.2.3", false, 0)));
        assert!(of(private(), at("::ffff:10.1.2.3", false, 0)), "the same address");
        assert!(!of(private(), at("11.1.2.3", false, 0)));
        assert!(!of(private(), at("", false, 0)), "an unknown address is in no range");
        assert!(of(conditions("2001:db8::/32", None, None, None), at("2001:db8::1", false, 0)));
        assert!(!of(conditions("", Some(true), None, None), at("", false, 0)));
        assert!(of(conditions("", Some(true), None, None), at("", true, 0)));
        for (now, expected) in [(4, false), (5, true), (9, true), (10, false)] {
            assert_eq!(of(conditions("", None, Some(5), Some(10)), at("", false, now)), expected, "{now}");
        }
    }

    #[test]
    fn who_may_do_nothing_does_not_learn_that_it_exists() {
        let here = at("", false, 0);
        let everyone = rule(Effect::Allow, Actions::of(&[Action::Read]), "pub/", Party::Everyone);
        let not_bob = rule(Effect::Deny, Actions::ALL, "", Party::User("bob".into()));
        let policy = Policy::new(vec![everyone, not_bob]).unwrap();
        assert!(policy.reveals(&who("alice", Role::User), &here));
        assert!(policy.reveals(&who("guest", Role::Guest), &here));
        assert!(!policy.reveals(&who("bob", Role::User), &here));
        assert!(!Policy::default().reveals(&who("alice", Role::User), &here));
    }

    const KEYS: [&str; 7] = ["", "a", "a/", "a/b", "a/b/", "a/b/c", "b"];
    const USERS: [&str; 3] = ["alice", "bob", "guest"];

    fn any_rule() -> impl Strategy<Value = Rule> {
        let party = prop_oneof![
            Just(Party::Everyone),
            prop::sample::select(vec![Role::Guest, Role::User]).prop_map(Party::Role),
            prop::sample::select(USERS.to_vec()).prop_map(|name| Party::User(name.to_owned())),
        ];
        let when = prop::option::of((prop::option::of(any::<bool>()), prop::option::of(0i64..4)).prop_map(
            |(tls, after)| Conditions {
                tls,
                after: after.map(Timestamp::from_millis),
                ..Conditions::default()
            },
        ));
        let actions = (1u8..64).prop_map(Actions);
        (
            any::<bool>(),
            actions,
            prop::sample::select(KEYS.to_vec()),
            prop::collection::vec(party, 1..3),
            when,
        )
            .prop_map(|(allow, actions, prefix, to, when)| Rule {
                effect: if allow { Effect::Allow } else { Effect::Deny },
                actions,
                prefix: prefix.to_owned(),
                to,
                when,
            })
    }

    /// The same decision, written as the sentence in the contract reads: by asking of each key of a small universe.
    fn reference(
        policy: &Policy,
        who: &Identity,
        of: &Circumstances,
        action: Action,
        key: &str,
    ) -> Option<Effect> {
        let mut verdict = None;
        for rule in &policy.rules {
            let names = Vec::<String>::from(rule.actions);
            let wanted = NAMED.iter().find(|(_, named)| *named == action).unwrap().0;
            let concerns_action = names.iter().any(|name| name == "*" || name == wanted);
            let concerns_caller = rule.to.iter().any(|party| match party {
                Party::Everyone => true,
                Party::Role(role) => role.as_str() == who.role.as_str(),
                Party::User(name) => name == &who.subject && who.role.as_str() != "guest",
            });
            let when = rule.when.clone().unwrap_or_default();
            let holds = (when.tls.is_none() || when.tls == Some(of.tls))
                && (when.after.is_none() || when.after.unwrap().as_millis() <= of.now.as_millis());
            let concerns_key = key.len() >= rule.prefix.len() && key[..rule.prefix.len()] == *rule.prefix;
            if concerns_action && concerns_caller && holds && concerns_key {
                if rule.effect == Effect::Deny {
                    return Some(Effect::Deny);
                }
                verdict = Some(Effect::Allow);
            }
        }
        verdict
    }

    proptest! {
        #[test]
        fn decisions_agree_with_the_reference(
            rules in prop::collection::vec(any_rule(), 0..8),
            user in prop::sample::select(USERS.to_vec()),
            guest in any::<bool>(),
            tls in any::<bool>(),
            now in 0i64..4,
            action in prop::sample::select(NAMED.to_vec()),
        ) {
            let policy = Policy::new(rules).unwrap();
            let who = who(user, if guest { Role::Guest } else { Role::User });
            let (here, action) = (at("", tls, now), action.1);
            let one = |key: &str| policy.allows(&who, &here, action, Span::Key(key));
            for key in KEYS {
                let expected = reference(&policy, &who, &here, action, key) == Some(Effect::Allow);
                prop_assert_eq!(one(key), expected, "{} {:?}", key, policy);
            }
            for below in KEYS {
                // A span is allowed only if each key in it is.
                if policy.allows(&who, &here, action, Span::Below(below)) {
                    for key in KEYS.iter().filter(|key| key.starts_with(below)) {
                        prop_assert!(one(key), "{} below {} {:?}", key, below, policy);
                    }
                }
            }
            let anything = NAMED.iter().any(|(_, action)| {
                KEYS.iter().any(|key| policy.allows(&who, &here, *action, Span::Key(key)))
            });
            prop_assert!(!anything || policy.reveals(&who, &here), "what may be used is no secret: {:?}", policy);
        }
    }
}
