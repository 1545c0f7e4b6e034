//! Runs the recipe: `train <tokenizer|sft|embedder|reranker|all> <data> <out> [minutes] [seed] [resume]`.
#![allow(clippy::print_stdout, reason = "reports to the terminal")]

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use recast_learner::{TrainReport, TrainSettings, train_embedder, train_reranker, train_rewriter, train_tokenizer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |index: usize| args.get(index).map(String::as_str);
    let (data, out) = (arg(1).unwrap_or("data"), arg(2).unwrap_or("models"));
    let seed = arg(4).and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let mut settings = TrainSettings::new(Path::new(data), Path::new(out), seed);
    settings.minutes = arg(3).and_then(|minutes| minutes.parse().ok());
    settings.resume = args.iter().any(|arg| arg == "resume");
    for (key, value) in args.iter().filter_map(|arg| arg.split_once('=')) {
        if key == "base" {
            settings.rewriter.base = Some(value.into());
            continue;
        }
        let number: f64 = value.parse()?;
        let (rewriter, embedder, reranker) = (&mut settings.rewriter, &mut settings.embedder, &mut settings.reranker);
        match key {
            "lr" => (rewriter.learning_rate, embedder.learning_rate, reranker.learning_rate) = (number, number, number),
            "rows" => {
                (rewriter.rows, embedder.rows, reranker.rows) = (number as usize, number as usize, number as usize)
            }
            "copies" => rewriter.copies = number,
            "swapped" => (rewriter.swapped, embedder.swapped, reranker.swapped) = (number, number, number),
            "prompt" => rewriter.prompt_weight = number,
            "smoothing" => rewriter.smoothing = number,
            "workers" => settings.workers = number as usize,
            _ => return Err(format!("unknown setting {key}").into()),
        }
    }
    let start = Instant::now();
    let (mut sum, mut count) = (0.0, 0);
    let mut observe = |step: u32, loss: f64| {
        sum += loss;
        count += 1;
        if count == 50 {
            println!("step {:5}  loss {:.4}  {:.0} s", step + 1, sum / f64::from(count), start.elapsed().as_secs_f64());
            (sum, count) = (0.0, 0);
        }
        ControlFlow::Continue(())
    };
    let show = |report: TrainReport| -> Result<(), Box<dyn std::error::Error>> {
        println!("{}", serde_json::to_string_pretty(&report)?);
        Ok(())
    };
    match arg(0) {
        Some("tokenizer") => println!("{} entries", train_tokenizer(&settings)?.vocab_size()),
        Some("sft") => show(train_rewriter(&settings, &mut observe)?)?,
        Some("embedder") => show(train_embedder(&settings, &mut observe)?)?,
        Some("reranker") => show(train_reranker(&settings, &mut observe)?)?,
        Some("all") => {
            train_tokenizer(&settings)?;
            show(train_rewriter(&settings, &mut observe)?)?;
            show(train_embedder(&settings, &mut observe)?)?;
            show(train_reranker(&settings, &mut observe)?)?;
        }
        _ => {
            return Err(
                "usage: train <tokenizer|sft|embedder|reranker|all> <data> <out> [minutes] [seed] [resume]".into()
            );
        }
    }
    Ok(())
}
