//! Figures, not checks: `cargo test -p recast-retrieval -- --ignored --nocapture speed`.
use std::time::Instant;

use recast_retrieval::LegChoice;
use recast_retrieval::document::Document;

use crate::support::{edge, request, retriever, scope};

#[tokio::test]
#[ignore = "prints figures and asserts nothing"]
async fn speed_of_search_and_ingest() {
    let folder = tempfile::tempdir().unwrap();
    let retriever = retriever(edge(folder.path()), None).await;
    let aspects = ["用法用量", "适用人群", "孕妇禁忌", "价格优惠", "保存方法", "不良反应", "成分含量", "发货时间"];
    let document = |n: usize| {
        let (product, aspect) = (n / 8, aspects[n % 8]);
        let text = format!(
            "产品{product}号胶原蛋白肽口服液的{aspect}说明：编号FD-{product}，每天{}瓶，饭后半小时服用，\
             建议连续服用{}天。如有不适请咨询医生或在线客服，{aspect}以包装为准。",
            n % 3 + 1,
            n % 90
        );
        Document::text(format!("d{n}"), format!("产品{product}号"), text)
    };
    let started = Instant::now();
    for tenant in ["shop", "rival", "third"] {
        let scope = scope(tenant, "default");
        let documents = (0..700).map(document).collect();
        retriever.put_documents(&scope.tenant, &scope.kb, documents, &|_| {}).await.unwrap();
    }
    eprintln!("ingest: {:.0} passages/s", 2100.0 / started.elapsed().as_secs_f64());
    let started = Instant::now();
    let shop = scope("shop", "default");
    retriever.put_documents(&shop.tenant, &shop.kb, (0..700).map(document).collect(), &|_| {}).await.unwrap();
    eprintln!("ingest unchanged: {:.0} documents/s", 700.0 / started.elapsed().as_secs_f64());
    for legs in [LegChoice::Bm25, LegChoice::Dense, LegChoice::Both] {
        let mut times = Vec::new();
        for n in 0..2000 {
            let mut request = request(&shop, &format!("产品{}号 孕妇 禁忌 胶原蛋白肽 服用安全性", n % 80));
            request.legs = legs;
            let started = Instant::now();
            retriever.search(&request).await.unwrap();
            times.push(started.elapsed().as_micros());
        }
        times.sort_unstable();
        eprintln!("{legs:?}: p50 {} us, p99 {} us", times[1000], times[1980]);
    }
}
