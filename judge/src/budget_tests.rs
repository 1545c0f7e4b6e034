use super::*;
use crate::testing::TestBooks;

const CALL: Usage = Usage { sent: 600, received: 400 };

fn budget(rpm: u32, tpm: u32, daily_cost: f64) -> Budget {
    with_books(rpm, tpm, daily_cost, None)
}

fn with_books(rpm: u32, tpm: u32, daily_cost: f64, books: Option<Arc<dyn JudgeBooks>>) -> Budget {
    let bounds = Bounds { rpm, tpm, daily_cost, price_in: 1000.0, price_out: 1000.0 };
    Budget::new(bounds, books, Instant::now())
}

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn requests_and_tokens_wait_for_their_minute() {
    for budget in [budget(2, 1_000_000, 1e9), budget(1000, 2000, 1e9)] {
        let (start, far) = (Instant::now(), Instant::now() + Duration::from_secs(600));
        for _ in 0..4 {
            budget.take(&tenant("a"), CALL, far).await.unwrap();
        }
        let seconds = start.elapsed().as_secs_f64();
        assert!((60.0..61.0).contains(&seconds), "two at once, two more within a minute: {seconds}");
        let soon = Instant::now() + Duration::from_secs(1);
        assert_eq!(budget.take(&tenant("a"), CALL, soon).await, Err(VerdictFault::Late));
        assert!(start.elapsed().as_secs_f64() < 61.0, "what cannot be in time is refused at once");
    }
}

#[tokio::test(start_paused = true)]
async fn real_usage_replaces_the_estimate() {
    let budget = budget(1000, 2000, 10.0);
    let far = Instant::now() + Duration::from_secs(60);
    let taken = budget.take(&tenant("a"), CALL, far).await.unwrap();
    assert!((budget.spent(&tenant("a")).await.unwrap() - 1.0).abs() < 1e-9);
    budget.settle(&tenant("a"), taken, Usage { sent: 100, received: 0 }).await;
    assert!((budget.spent(&tenant("a")).await.unwrap() - 0.1).abs() < 1e-9);
    let start = Instant::now();
    budget.take(&tenant("a"), Usage { sent: 1900, received: 0 }, far).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO, "tokens that were not used are free again");
}

#[tokio::test(start_paused = true)]
async fn a_tenants_day_ends_at_its_money_and_the_next_begins_anew() {
    let budget = budget(1000, 1_000_000, 2.5);
    let far = Instant::now() + Duration::from_secs(200_000);
    for _ in 0..2 {
        budget.take(&tenant("a"), CALL, far).await.unwrap();
    }
    assert_eq!(budget.take(&tenant("a"), CALL, far).await, Err(VerdictFault::BudgetSpent));
    budget.take(&tenant("b"), CALL, far).await.unwrap();
    tokio::time::advance(Duration::from_secs(86_400)).await;
    assert!(budget.spent(&tenant("a")).await.unwrap().abs() < 1e-9);
    budget.take(&tenant("a"), CALL, far).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_restart_does_not_give_the_money_again() {
    let books = Arc::new(TestBooks::default());
    let far = Instant::now() + Duration::from_secs(200_000);
    let first = with_books(1000, 1_000_000, 2.5, Some(books.clone()));
    let taken = first.take(&tenant("a"), CALL, far).await.unwrap();
    first.settle(&tenant("a"), taken, Usage { sent: 300, received: 200 }).await;
    // and one that was under way when the process was killed
    first.take(&tenant("a"), CALL, far).await.unwrap();
    drop(first);
    let second = with_books(1000, 1_000_000, 2.5, Some(books.clone()));
    assert!((second.spent(&tenant("a")).await.unwrap() - 1.5).abs() < 1e-9);
    second.take(&tenant("a"), CALL, far).await.unwrap();
    assert_eq!(second.take(&tenant("a"), CALL, far).await, Err(VerdictFault::BudgetSpent));
    second.take(&tenant("b"), CALL, far).await.unwrap();
    let kept = books.costs.lock().unwrap().values().sum::<f64>();
    assert!((kept - 3.5).abs() < 1e-9, "what was refused is not written down: {kept}");
}

#[tokio::test(start_paused = true)]
async fn a_call_of_yesterday_is_settled_with_yesterday() {
    let budget = budget(1000, 1_000_000, 2.5);
    let far = Instant::now() + Duration::from_secs(200_000);
    let taken = budget.take(&tenant("a"), CALL, far).await.unwrap();
    tokio::time::advance(Duration::from_secs(86_400)).await;
    budget.take(&tenant("a"), CALL, far).await.unwrap();
    budget.settle(&tenant("a"), taken, Usage { sent: 0, received: 0 }).await;
    assert!((budget.spent(&tenant("a")).await.unwrap() - 1.0).abs() < 1e-9, "today's is untouched");
}

#[tokio::test(start_paused = true)]
async fn money_that_cannot_be_written_down_is_not_spent() {
    let far = Instant::now() + Duration::from_secs(60);
    let broken = with_books(1000, 1_000_000, 2.5, Some(Arc::new(TestBooks::broken())));
    let refused = broken.take(&tenant("a"), CALL, far).await;
    assert!(matches!(&refused, Err(VerdictFault::Unavailable(cause)) if cause.contains("disk")), "{refused:?}");
    let free = Bounds { rpm: 10, tpm: 10_000, daily_cost: 0.0, price_in: 0.0, price_out: 0.0 };
    let free = Budget::new(free, Some(Arc::new(TestBooks::broken())), Instant::now());
    free.take(&tenant("a"), CALL, far).await.unwrap();
}

#[test]
fn tokens_are_estimated_by_script() {
    assert_eq!((estimated_tokens("胶原蛋白"), estimated_tokens("collagen peptide"), estimated_tokens("")), (4, 6, 0));
}
