//! Lines of a batch on their way to Redis.

use super::scripts::{self, Written};
use super::serve::Context;
use crate::cold::registry::port::Line;
use futures_util::StreamExt;
use futures_util::stream;
use redis::{RedisError, RedisResult};

/// One pipeline, of which each line succeeds or fails by itself.
pub(super) async fn write_piped(cx: &Context, lines: &[Line]) -> RedisResult<Vec<RedisResult<Option<Written>>>> {
    let mut pipe = redis::Pipeline::with_capacity(lines.len());
    pipe.ignore_errors();
    for line in lines {
        let key = cx.keys.driver(line.driver_id.as_str());
        pipe.add_command(cx.scripts.line(&key, &cx.node_id, line, cx.ttl_ms));
    }
    let answers: Vec<redis::Value> = cx.link.pipe(&pipe).await?;
    let result = |answer| match answer {
        redis::Value::ServerError(error) => Err(RedisError::from(error)),
        answer => Ok(scripts::written(&answer)),
    };
    Ok(answers.into_iter().map(result).collect())
}

/// Each line by itself, to whichever master has it.
pub(super) async fn write_scattered(cx: &Context, lines: &[Line]) -> RedisResult<Vec<RedisResult<Option<Written>>>> {
    let calls = lines.iter().map(|line| async {
        let key = cx.keys.driver(line.driver_id.as_str());
        let cmd = cx.scripts.line(&key, &cx.node_id, line, cx.ttl_ms);
        let answer = cx.link.query::<redis::Value>(&cmd).await;
        answer.map(|answer| scripts::written(&answer))
    });
    // In their order: the results are those of the lines.
    Ok(stream::iter(calls).buffered(lines.len().max(1)).collect().await)
}
