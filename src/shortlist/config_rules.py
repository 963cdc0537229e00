"""What must hold between settings, each rule with its reason: a combination that would train something else than it says is refused."""

from __future__ import annotations

from shortlist.errors import ConfigError
from shortlist.sections import CONTENT_KINDS, ITEM_KINDS, Config, FeatureSettings, feature_settings


def refuse_contradictions(config: Config, where: str) -> None:
    """Raises ConfigError for the first rule that does not hold; `where` is named in front."""
    model, negatives, train, evaluate = config.model, config.negatives, config.train, config.evaluate
    columns, loss, frequency, index = config.columns, config.loss, config.frequency, config.index
    kinds = {settings.kind for settings in feature_settings(config.item).values()}
    rules: list[tuple[bool, str]] = [
        (model.temperature is None or model.temperature > 0, f"model.temperature must be above 0: got {model.temperature}"),
        (
            0 < model.temperature_bounds[0] <= (model.temperature or model.temperature_bounds[0]) <= model.temperature_bounds[1],
            f"model.temperature must lie within model.temperature_bounds: got {model.temperature} for {list(model.temperature_bounds)}",
        ),
        (
            min((*model.hidden, 1)) >= 1 <= len(model.hidden),
            f"model.hidden needs one or more positive widths: got {list(model.hidden)}",
        ),
        (model.embedding_dim > 0, f"model.embedding_dim must be positive: got {model.embedding_dim}"),
        (0 <= model.id_dropout < 1, f"model.id_dropout is a share in [0, 1): got {model.id_dropout}"),
        (0 <= model.singleton_id_dropout < 1, f"model.singleton_id_dropout is a share in [0, 1): got {model.singleton_id_dropout}"),
        (0 <= (model.history_dropout or 0) < 1, f"model.history_dropout is a share in [0, 1): got {model.history_dropout}"),
        (
            (model.match_dim or 0) >= 0 and model.match_dim != 1,
            f"model.match_dim must be 2 or more, half of it for common words and half for rare ones, or 0: got {model.match_dim}",
        ),
        (
            not model.match_dim or not kinds or {"id"} < kinds & {"id", *CONTENT_KINDS},  # none: they are proposed, and say enough
            "model.match_dim matches items by words, and tells by id what that counts: name an item feature of kind id and one of kind "
            "text, category or categories, or set it to 0",
        ),
        (
            not model.match_dim or (model.item_bias and train.calibrate and train.validation_fraction > 0),
            "model.match_dim needs choices held out that say what matches count: keep model.item_bias, train.calibrate and "
            "train.validation_fraction above 0, or set it to 0",
        ),
        (negatives.batch_size >= 1, f"negatives.batch_size must be at least 1: got {negatives.batch_size}"),
        (negatives.index_batch_size >= 0, f"negatives.index_batch_size must not be negative: got {negatives.index_batch_size}"),
        (
            negatives.batch_size + negatives.index_batch_size >= 2,
            "a softmax needs a negative: set negatives.batch_size to 2 or more, or negatives.index_batch_size to 1 or more",
        ),
        (0 < negatives.unchosen_weight <= 1, f"negatives.unchosen_weight is a weight in (0, 1]: got {negatives.unchosen_weight}"),
        (0 <= loss.logq_weight <= 1, f"loss.logq_weight must lie in [0, 1]: got {loss.logq_weight}"),
        (
            not train.both_ways_within or (columns.user is not None and columns.time is not None),
            "train.both_ways_within reverses what users chose one after the other: name [columns] user and time, or set it to 0",
        ),
        (
            not train.both_ways_within or columns.seed is columns.history is None,
            "train.both_ways_within reverses histories that are derived from the log: got [columns] seed or history; set it to 0",
        ),
        ((train.both_ways_within or 0) >= 0, f"train.both_ways_within must not be negative: got {train.both_ways_within}"),
        (0 < frequency.rate < 1, f"frequency.rate must lie in (0, 1): got {frequency.rate}"),
        (
            min(negatives.queue_batches, negatives.cached, negatives.hardest) >= 0,
            "negatives.queue_batches, cached and hardest count up from 0",
        ),
        (
            1 <= negatives.mined_ranks[0] <= negatives.mined_ranks[1] and negatives.mined_per_query >= 1,
            f"negatives.mined_ranks must rise from 1, mined_per_query must be at least 1: got {list(negatives.mined_ranks)}",
        ),
        (model.cross_layers >= 0 and model.cross_rank >= 1, "model.cross_layers counts up from 0, cross_rank from 1"),
        (
            not (loss.design == "all_corrected" and loss.masks is not None and "item" in loss.masks),
            'loss.masks must not name "item" under design "all_corrected": its positive is corrected on a set that keeps duplicates, so '
            "an accidental hit is a second, rightly weighted copy of the positive; without it the loss tends to the softmax over the "
            'negatives alone, and more negatives do not cure it (docs/estimators.md). Take the mask out, or use design "expected_count"',
        ),
        (
            not (loss.design != "all_corrected" and loss.masks is not None and "item" not in loss.masks),
            f'loss.masks must name "item" under design "{loss.design}": its positive stands apart, an accidental hit would count twice',
        ),
        (
            not (loss.frequencies == "unigram" and negatives.kind == "mixed" and (negatives.index_batch_size > 0 or negatives.cached > 0)),
            'loss.frequencies = "unigram" is wrong when uniform items are drawn (negatives.index_batch_size > 0): an item comes from '
            "either stream, so its expected count is (B-1) q + B'/M; a rare one would be corrected by a count near 0 that it does not "
            'have. Use "mixture", or set negatives.index_batch_size = 0',
        ),
        (
            negatives.kind == "mixed" or (negatives.queue_batches == negatives.cached == 0 and negatives.mined_from is None),
            f'negatives.kind = "{negatives.kind}" has no further streams: set queue_batches and cached to 0 and take mined_from out',
        ),
        (
            negatives.mined_from is None or (negatives.index_batch_size > 0 and negatives.index_from != "chosen"),
            "negatives.mined_from may bring items that nobody chose, whose expected count needs uniform draws from the whole corpus: set "
            'negatives.index_batch_size to 1 or more, and index_from = "corpus"',
        ),
        (
            negatives.kind != "sampled" or negatives.index_batch_size >= 1,
            'negatives.kind = "sampled" needs draws: set negatives.index_batch_size to 1 or more',
        ),
        (
            negatives.kind != "full" or loss.design == "expected_count",
            f'negatives.kind = "full" has every item once, the positive too: set loss.design = "expected_count" (got "{loss.design}")',
        ),
        (
            negatives.kind != "sampled" or loss.design == "inclusion",
            'negatives.kind = "sampled" draws distinct items: set loss.design = "inclusion"',
        ),
        (
            loss.design != "inclusion" or (negatives.queue_batches == negatives.cached == 0 and negatives.mined_from is None),
            'loss.design = "inclusion" is for the batch and the index draws: set queue_batches and cached to 0, take mined_from out',
        ),
        (train.adagrad_start > 0, f"train.adagrad_start must be above 0, or the first step divides by zero: got {train.adagrad_start}"),
        (min(train.checkpoint_steps, train.log_steps) >= 1, "train.checkpoint_steps and log_steps must be at least 1"),
        (train.patience is None or train.patience >= 1, f"train.patience must be at least 1 epoch: got {train.patience}"),
        (train.epochs is None or train.epochs >= 1, f"train.epochs must be at least 1: got {train.epochs}"),
        (train.seed >= 0 and evaluate.seed >= 0, f"seeds must not be negative: got {train.seed} and {evaluate.seed}"),
        (train.threads is None or train.threads >= 1, f"train.threads must be at least 1: got {train.threads}"),
        (train.validation_at_most >= 1, f"train.validation_at_most must be at least 1: got {train.validation_at_most}"),
        (
            (train.table_learning_rate or 0) >= 0 and train.table_weight_decay >= 0,
            "train.table_learning_rate and table_weight_decay must not be negative",
        ),
        (evaluate.bootstrap >= 1, f"evaluate.bootstrap must be at least 1 resample: got {evaluate.bootstrap}"),
        (train.learning_rate > 0, f"train.learning_rate must be above 0: got {train.learning_rate}"),
        (0 <= train.validation_fraction < 1, f"train.validation_fraction is a share in [0, 1): got {train.validation_fraction}"),
        (0 < evaluate.holdout_fraction < 1, f"evaluate.holdout_fraction is a share in (0, 1): got {evaluate.holdout_fraction}"),
        (min((*evaluate.ks, 1)) >= 1 and len(evaluate.ks) > 0, f"evaluate.ks needs one or more positive cut-offs: got {list(evaluate.ks)}"),
        (
            evaluate.protocol in ("holdout", "release") or columns.time is not None,
            f'evaluate.protocol = "{evaluate.protocol}" needs times: name [columns] time, or set protocol = "holdout"',
        ),
        (
            evaluate.protocol != "release" or evaluate.next_events is not None,
            'evaluate.protocol = "release" tests what the next snapshot added: name evaluate.next_events',
        ),
        (
            evaluate.protocol != "release" or (evaluate.next_items is None) == (config.data.items is None),
            'evaluate.protocol = "release" retrieves out of the next snapshot of the corpus: name evaluate.next_items where [data] items '
            "is named, and only there",
        ),
        (
            evaluate.seen_items != "exclude" or evaluate.repeats in (None, "drop"),
            f'evaluate.seen_items = "exclude" leaves no list that could hold a repeat: got repeats = "{evaluate.repeats}"; set "drop" (or '
            'leave it out), or seen_items = "exclude_seed" or "rank"',
        ),
        (
            evaluate.protocol != "holdout" or evaluate.holdout != "users" or columns.user is not None,
            'evaluate.holdout = "users" holds out users: name [columns] user',
        ),
        (
            evaluate.protocol != "leave_last" or columns.user is not None,
            'evaluate.protocol = "leave_last" holds out each user\'s last event: name [columns] user',
        ),
        (
            min(evaluate.train_days, evaluate.test_days, evaluate.shifts) >= 1,
            "evaluate.train_days, test_days and shifts must be at least 1",
        ),
        (0 < index.target_recall < 1, f"index.target_recall is a share in (0, 1): got {index.target_recall}; for all of them set kind"),
        (
            min(index.target_k, index.leaves or 1, index.searched or 1, index.rescored or 1, index.build_threads or 1) >= 1
            and 0 not in (index.leaves, index.searched, index.rescored, index.build_threads),
            "index.target_k, leaves, searched, rescored and build_threads must be at least 1",
        ),
        (
            index.kind in ("scann", "faiss") or index.leaves is index.searched is index.rescored is None,
            f'index.leaves, searched and rescored are for kind "scann" or "faiss": got kind = "{index.kind}"; take them out',
        ),
        (
            (index.searched is None) == (index.rescored is None),
            "index.searched and index.rescored are one effort: set both, or neither to have them tuned",
        ),
        (
            index.rescored is None or index.rescored >= index.target_k,
            f"index.rescored must be at least index.target_k: got {index.rescored} for {index.target_k}",
        ),
        (
            model.popularity == "learned" or columns.time is not None,
            'model.popularity = "recent" needs times: name [columns] time, or set "learned"',
        ),
        (0 <= index.seed < 2**31 - 1, f"index.seed must lie in [0, 2^31 - 1): got {index.seed}"),
    ]
    for holds, message in rules:
        if not holds:
            raise ConfigError(f"{where}: {message}")
    for table in (config.item, config.query):
        for name, settings in feature_settings(table).items():
            _refuse_bad_sizes(where, name, settings)
    for name, settings in feature_settings(config.item).items():
        if settings.kind == "id" and settings.min_count > 1:
            raise ConfigError(
                f"{where}: item.features.{name}: an id stands once in the items table, so min_count = {settings.min_count} would make all "
                "unknown; take it out (items that nobody chose have no vector of their own anyway)"
            )
        if settings.kind not in ITEM_KINDS:
            raise ConfigError(
                f"{where}: item.features.{name} is of kind {settings.kind!r}, which only queries have; use one of {', '.join(ITEM_KINDS)}"
            )


def _refuse_bad_sizes(where: str, name: str, settings: FeatureSettings) -> None:
    for size in ("dim", "buckets", "unknown_buckets", "min_count", "last", "max_tokens"):
        value = getattr(settings, size)
        if value is not None and value < 1:
            raise ConfigError(f"{where}: feature {name!r}: {size} must be at least 1: got {value}")
    shortest, longest = settings.character_ngrams
    if (shortest, longest) != (0, 0) and not 1 <= shortest <= longest:
        raise ConfigError(f"{where}: feature {name!r}: character_ngrams must be [shortest, longest] or [0, 0]: got {[shortest, longest]}")
