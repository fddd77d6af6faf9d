"""The section `data` of a configuration."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataConfig:
    """The examples: where they come from and how long they may be."""

    dir: str | None = None
    """Source of the examples: a folder with <task>/{train,validation}.<csv|tsv|jsonl|parquet>, embedded (miniature
    GLUE) or null (the Hub). Task custom: also a single file, or a folder that holds the files of the splits. Task
    text: a text file, or a folder with train.txt and validation.txt (also .gz)."""
    max_length: int = 128
    """Longest sequence in tokens; longer texts are truncated."""
    max_train_examples: int | None = None
    """Train on a random subset of this size; null: on everything."""
    held_out_fraction: float = 0.05
    """Share of the training set held out to select epochs; validation is only ever reported."""
    seed: int = 0
    """Seed of the subset, the splits and the embedded data; not of training."""
    validation_fraction: float = 0.1
    """Task custom without a validation file: share of the rows split off as one, stratified by class; at least 200
    rows, unless that is more than a fifth. Task text: the last part of the text."""
    text_columns: list[str] | str | None = None
    """Task custom: the text column, or a list of two; null: found by common names."""
    label_column: str | list[str] = "label"
    """Task custom: the column to predict; without a column `label`, one with another common name is found. With
    multi_label also a list of 0/1 columns, one for each label."""
    label_names: list[str] | None = None
    """Task custom: class names in label order; null: those of the training file, sorted."""
    regression: bool = False
    """Task custom: predict a number instead of a class."""
    main_metric: str | None = None
    """Task custom: the metric that the verdict speaks of; null: accuracy, or pearson for regression. macro_f1 or
    matthews_correlation suit data with a rare class; f1 is that of the second of two classes. With multi_label:
    micro_f1 (null), macro_f1 or subset_accuracy, the share of texts all of whose labels are right."""
    drop_incomplete: bool = False
    """Leave out rows in which a text or the label is missing (-1 and - too, unless they are in label_names), and say
    how many; false: such a row is an error."""
    multi_label: bool = False
    """Task custom: a text has any number of labels. They stand in label_column, as a list of names or as one text
    with commas, semicolons or bars between them, or in 0/1 columns: those of label_names, or all that the file has
    beside the texts."""
    text_unit: str | None = None
    """Task text: what a token is: byte, character, word or wordpiece; null: byte for model causal, wordpiece for
    model masked. A teacher.checkpoint has its own."""
    passages: bool = False
    """Task text, model masked: read passages of all lengths up to max_length, half of them in pairs of neighbours or
    of two that share a rare word, as classifiers read texts; false: windows of max_length."""
    unlabelled: str | None = None
    """A file of texts without labels (txt: one text a line; csv, tsv, jsonl or parquet with the task's text columns;
    also .gz), or a folder of such files. The stages read them, labelled by the teacher."""

    def __post_init__(self) -> None:
        if isinstance(self.text_columns, str):  # one column may be given without brackets, and is kept as a list
            object.__setattr__(self, "text_columns", [self.text_columns])
        if self.label_names is not None:
            object.__setattr__(self, "label_names", [str(name).strip() for name in self.label_names])
