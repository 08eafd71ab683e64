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
        crate::uploads::put_part, crate::uploads::complete,
        crate::zip::get, crate::zip::head,
    ),
    modifiers(&Bearer),
)]
struct Api;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut Document) {
        let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        document.components.get_or_insert_default().add_security_scheme("bearer", bearer);
    }
}

/// The document.
pub fn document() -> Document {
    Api::openapi()
}
