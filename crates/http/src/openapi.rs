//! The OpenAPI document, made from the handlers themselves.

use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(title = "Carrack", description = "A self-hosted file-transfer server: uploads that resume, downloads with ranges, selections as one resumable ZIP."),
    paths(
        crate::system::livez, crate::system::readyz, crate::system::metrics, crate::system::openapi,
        crate::buckets::list, crate::buckets::put, crate::buckets::get, crate::buckets::delete,
        crate::files::list, crate::files::get, crate::files::head, crate::files::put, crate::files::delete,
        crate::uploads::list, crate::uploads::create, crate::uploads::status, crate::uploads::delete,
        crate::uploads::put_part, crate::uploads::complete, crate::sign::part_url, crate::sign::part_urls,
        crate::sign::sign, crate::tokens::create, crate::tokens::list, crate::tokens::revoke, crate::tokens::deny, crate::tokens::denied, crate::tokens::me,
        crate::links::create, crate::links::list, crate::links::get, crate::links::revoke, crate::links::open,
        crate::links::answer, crate::links::use_claim, crate::tokens::begin_session, crate::tokens::end_session,
        crate::tus::options, crate::tus::options_of_upload, crate::tus::create, crate::tus::head, crate::tus::patch,
        crate::tus::delete, crate::tus::resource,
        crate::resumable::options, crate::resumable::options_of_upload, crate::resumable::post, crate::resumable::head,
        crate::resumable::get, crate::resumable::patch, crate::resumable::delete,
        crate::zip::get, crate::zip::head,
        crate::archives::create, crate::archives::list, crate::archives::get, crate::archives::delete,
        crate::archives::pause, crate::archives::resume, crate::archives::cancel, crate::archives::content,
        crate::archives::head, crate::live::events,
        crate::ws::open, crate::audit::list, crate::cluster::get,
    ),
    modifiers(&Bearer, &OperationIds),
)]
struct Api;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut Document) {
        let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        document.components.get_or_insert_default().add_security_scheme("bearer", bearer);
    }
}

/// Handlers are called `list`, `get`, `put` in every room; operation ids have to be unique (OpenAPI §4.8.10).
struct OperationIds;

impl Modify for OperationIds {
    fn modify(&self, document: &mut Document) {
        for item in document.paths.paths.values_mut() {
            let operations = [
                &mut item.get,
                &mut item.head,
                &mut item.put,
                &mut item.post,
                &mut item.delete,
                &mut item.patch,
                &mut item.options,
            ];
            for operation in operations.into_iter().flatten() {
                let tag = operation.tags.iter().flatten().next();
                if let (Some(tag), Some(id)) = (tag, &operation.operation_id) {
                    operation.operation_id = Some(format!("{tag}_{id}"));
                }
            }
        }
    }
}

/// The document.
pub fn document() -> Document {
    Api::openapi()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn operation_ids_are_unique() {
        let document = serde_json::to_value(document()).unwrap();
        let mut seen = BTreeSet::new();
        for item in document["paths"].as_object().unwrap().values() {
            for operation in item.as_object().unwrap().values() {
                let id = operation["operationId"].as_str().unwrap().to_owned();
                assert!(seen.insert(id.clone()), "{id} twice");
            }
        }
        assert!(seen.contains("files_put") && seen.contains("uploads_put_part"), "{seen:?}");
    }
}
