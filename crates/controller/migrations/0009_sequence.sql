-- Sequences of the state number what hosts are told, as generations of each host did before: they go on from the highest.
UPDATE position SET sequence = max(sequence, (
    SELECT coalesce(max(body ->> 'generation'), 0) FROM objects WHERE kind = 'host'
));
