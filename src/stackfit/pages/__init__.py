"""The page allocator: free blocks by order and migratetype, recorded events replayed, fragmentation."""
