//! The routes from outside, over real parts in temporary folders; only rewriters that misbehave are doubles.

mod admission;
mod arena;
mod contract;
mod exports;
mod labels;
mod life;
mod management;
mod rewrite_service;
mod scoring;

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use recast_config::{Settings, Source, TenantProfile};
use recast_domain::{PolicyId, Rewrite, RewriteSource};
use recast_retrieval::document::Document;
use recast_rewriter::{RewriteError, RewriteRequest, Rewriter};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::app::{App, Gateway};
use crate::keys::{KeyFile, Scope};
use crate::router::router;

/// A gateway in a temporary folder with two tenants; lexical search, no models.
pub struct World {
    pub folder: tempfile::TempDir,
    overrides: Vec<(String, String)>,
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for tenant in ["alpha", "beta"] {
            write_tenant(folder.path(), tenant, "改写");
        }
        let mut world = Self { folder, overrides: Vec::new() };
        for (key, value) in [
            ("SERVER__LISTEN", "127.0.0.1:0"),
            ("REWRITER__KIND", "pass_through"),
            ("EMBEDDER__KIND", "none"),
            ("RERANKER__KIND", "none"),
            ("RETRIEVAL__SCORE_THRESHOLD", "0.0"),
            ("TENANTS__SEED", "false"),
        ] {
            world.set(key, value);
        }
        let (tenants, state) = (world.path("tenants"), world.path("state"));
        world.set("TENANTS__DIR", &tenants).set("STATE__DIR", &state);
        world
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.overrides.push((format!("RECAST__{key}"), value.to_owned()));
        self
    }

    pub fn settings(&self) -> Settings {
        recast_config::load(&Source::parse("demo"), self.overrides.clone()).unwrap().settings
    }

    pub fn key(&self, tenant: &str, scope: Scope) -> String {
        let file = KeyFile::new(self.settings().keys_file());
        let key = file.create(&tenant.parse().unwrap(), scope, None).unwrap();
        key.text.expose_secret().to_owned()
    }

    /// Opens the gateway with a few documents for each tenant, and a key for each.
    pub async fn open(&self) -> Site {
        let keys = ["alpha", "beta"].map(|tenant| (self.key(tenant, Scope::Serve), self.key(tenant, Scope::Admin)));
        let train = self.key("alpha", Scope::Train);
        let gateway = Gateway::open(self.settings()).await.unwrap();
        for tenant in ["alpha", "beta"] {
            for (id, text) in [("drink", "胶原蛋白肽饮：孕妇不宜食用"), ("price", "叶黄素软糖：零售价 298 元")]
            {
                let document = Document::text(id, "", format!("{text}（{tenant}）"));
                let tenant = tenant.parse().unwrap();
                gateway.retriever().put_document(&tenant, &Default::default(), document).await.unwrap();
            }
        }
        let app = gateway.app();
        let [(alpha, alpha_admin), (beta, beta_admin)] = keys;
        Site { router: router(Arc::clone(&app)), app, gateway, alpha, alpha_admin, beta, beta_admin, train }
    }
}

pub fn write_tenant(root: &std::path::Path, id: &str, prompt: &str) {
    let dir = root.join("tenants").join(id);
    std::fs::create_dir_all(&dir).unwrap();
    let text = format!("id = \"{id}\"\nname = \"{id}\"\nsystem_prompt = \"{prompt}\"\n");
    std::fs::write(dir.join("tenant.toml"), text).unwrap();
}

/// An opened gateway and its keys.
pub struct Site {
    pub router: Router,
    pub app: Arc<App>,
    pub gateway: Gateway,
    pub alpha: String,
    pub alpha_admin: String,
    pub beta: String,
    pub beta_admin: String,
    /// Alpha's key for having completions scored.
    pub train: String,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub text: String,
    pub body: Value,
}

impl Site {
    pub async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 16 << 20).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Reply {
            status: head.status,
            headers: head.headers,
            body: serde_json::from_str(&text).unwrap_or_default(),
            text,
        }
    }

    pub async fn ask(&self, key: &str, body: Value) -> Reply {
        self.send(question(key).body(Body::from(body.to_string())).unwrap()).await
    }

    pub async fn call(&self, method: &str, path: &str, key: &str, body: Option<Value>) -> Reply {
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {key}"));
        let request = match body {
            None => request.body(Body::empty()),
            Some(body) => request.header("content-type", "application/json").body(Body::from(body.to_string())),
        };
        self.send(request.unwrap()).await
    }

    /// Puts a double in the place of the local rewriter.
    pub fn rewriter(&self, double: Double) {
        self.gateway.pipeline().ladder().set_local(Some(Arc::new(double)));
    }
}

pub fn question(key: &str) -> http::request::Builder {
    Request::builder()
        .method("POST")
        .uri("/general_rag")
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
}

/// A rewriter that misbehaves.
pub enum Double {
    /// Says that it was entered, and answers once it is let go.
    Waits { entered: Arc<Notify>, go: Arc<Notify> },
    /// Never answers.
    Hangs,
    /// Panics.
    Panics,
    /// Answers at once.
    Says(&'static str),
}

#[async_trait]
impl Rewriter for Double {
    fn policy(&self) -> PolicyId {
        "double".parse().unwrap()
    }

    fn prompt_hash(&self, tenant: &TenantProfile) -> String {
        format!("hash-of-{}", tenant.id)
    }

    async fn rewrite(&self, request: &RewriteRequest, _deadline: Instant) -> Result<Rewrite, RewriteError> {
        let text = match self {
            Self::Waits { entered, go } => {
                entered.notify_one();
                go.notified().await;
                request.conversation.query.clone()
            }
            Self::Hangs => std::future::pending().await,
            Self::Panics => panic!("the double panics"),
            Self::Says(text) => (*text).to_owned(),
        };
        Ok(Rewrite::plain(text, RewriteSource::Local, self.policy()))
    }
}

pub fn ids(reply: &Reply) -> Vec<&str> {
    let recall = reply.body["data"]["recall"].as_array().map(Vec::as_slice).unwrap_or_default();
    recall.iter().filter_map(|hit| hit["doc_id"].as_str()).collect()
}

pub fn plain() -> Value {
    json!({"query": "叶黄素软糖 价格"})
}
